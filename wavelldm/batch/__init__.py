"""Many files on many machines, by Ray Data; and raw recordings into shards to train on.

Read `places` (folders here and in object stores), `sources` (what is to be done: folders, manifests, shards), `tasks`
(what is done with a file), `worker` (one process with one model), `ledger` (what is done already, and the report), then
`run` (the plan, and Ray); `processes` ends what Ray leaves behind. `prepare` finds speech in raw recordings and writes
shards. Nothing here imports PyTorch, but for tasks that need it.
"""
