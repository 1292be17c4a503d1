"""The command line, a file for each group of commands: `denoise` (and refine), `restore`, `codec` (compress,
decompress), `train`, `evaluate`, `data` (and mix), `text` (generate, tag), `ladder`, `demo`, `info`.

Read `main` first: it gathers the commands and turns errors into sentences. `options` holds what all commands share,
`streams` WAV over standard input and output.
"""
