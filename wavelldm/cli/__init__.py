"""The command line, a file for each group of commands: `denoise` (and refine), `live`, `restore`, `batch`, `codec`
(compress, decompress), `train`, `evaluate`, `listen`, `app`, `data` (and mix), `text` (generate, tag), `ladder`,
`export`, `web`, `demo`, `info`.

Read `main` first: it gathers the commands and turns errors into sentences. `options` holds what all commands share,
`streams` WAV over standard input and output.
"""
