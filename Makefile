PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# servers and clusters have processes of their own, live sound has deadlines: the others run side by side first
ALONE := tests/app tests/batch tests/web/test_live.py tests/web/test_talk.py
tested = $(BIN)/python -m pytest $(addprefix --ignore=,$(ALONE)) -n logical --maxprocesses 4 --dist loadgroup $(1) || failed=1; \
	$(BIN)/python -m pytest $(ALONE) || failed=1; exit $${failed:-0}

MANIFEST ?=
TABLE := $(if $(MANIFEST),--manifest $(MANIFEST))

.PHONY: help demo test unit lint wheel graphs web lab notebooks android bench bench-codec bench-restore train-codec train-denoiser train-restorer train-ladder train-refining clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/metrics ## clean a noisy clip: sounds, before/after picture and metrics in demo/
	$(BIN)/wavelldm demo

test: $(VENV)/dev ## all tests, those of browsers too, and every notebook in the quick profile
	$(tested)

unit: $(VENV)/dev ## all tests but the notebooks
	$(call tested,-m "not notebook")

lint: $(VENV)/dev ## format and rules (ruff)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

graphs: $(VENV)/dev ## write the ONNX graphs that ship anew, beside their weights
	$(BIN)/python -c 'from wavelldm.export.write import write_shipped; write_shipped()'

web: ## build the browser app into wavelldm/web (needs Node 20)
	cd web && npm ci --no-fund --no-audit && npm run check && npm run build

wheel: ## a wheel in dist/, to install elsewhere or to put beside a notebook
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .

lab: $(VENV)/dev ## JupyterLab on the course
	$(BIN)/jupyter lab notebooks

notebooks: $(VENV)/dev ## run all notebooks again and save them with their outputs
	$(BIN)/python notebooks/build.py

bench: $(VENV)/peers ## every benchmark (MANIFEST=table.tsv: on your recordings); tables go to benchmarks/README.md
	for name in mel above; do $(BIN)/python benchmarks/$$name.py || exit 1; done
	for name in loader latents codec usage decoders pitch denoise find restore oracles ladder refine shell; do $(BIN)/python benchmarks/$$name.py $(TABLE) || exit 1; done

bench-codec: $(VENV)/dev ## the codec's benchmark alone
	$(BIN)/python benchmarks/codec.py $(TABLE)

bench-restore: $(VENV)/peers ## restoration's benchmark alone (TPLCNET=tPLCnet_s.tflite: beside that network); about 25 minutes on one core
	$(BIN)/python benchmarks/restore.py $(TABLE) $(if $(TPLCNET),--tplcnet $(TPLCNET))

train-codec: $(VENV)/dev ## train the codecs that ship and the looks (MANIFEST=table.tsv); about 7 hours on one CPU thread
	for network in codec looks; do $(BIN)/wavelldm train $$network --recipe shipped $(TABLE) || exit 1; done
	$(BIN)/wavelldm train codec --recipe shipped-live $(TABLE)

train-denoiser: $(VENV)/dev ## train the denoisers that ship, for streams, for files, and the diffusion (MANIFEST=table.tsv); about 32 hours on one CPU thread
	for network in mask diffusion; do $(BIN)/wavelldm train $$network --recipe shipped $(TABLE) || exit 1; done
	$(BIN)/wavelldm train mask --recipe shipped-studio $(TABLE)

train-restorer: $(VENV)/dev ## train what fills gaps, the latent and the filler (MANIFEST=table.tsv); about 3 hours on one CPU thread
	$(BIN)/wavelldm train latent --recipe shipped $(TABLE) -o runs/latent-shipped
	$(BIN)/wavelldm train filler --recipe shipped $(TABLE) --latent runs/latent-shipped/latent2/base16k-latent

train-ladder: $(VENV)/dev ## train the networks of the reconstruction ladder; about 1.5 hours on one CPU thread
	for network in vocoder autoencoder vae; do $(BIN)/wavelldm train $$network --recipe shipped $(TABLE) || exit 1; done
	for recipe in shipped-wide shipped-words; do $(BIN)/wavelldm train vae --recipe $$recipe $(TABLE) || exit 1; done
	$(BIN)/wavelldm train refinement --recipe shipped --vae runs/vae-shipped/vae/ladder-vae $(TABLE)

train-refining: $(VENV)/dev ## train the speech prior, SEGAN and the waveform denoiser; about 1.5 hours on one CPU thread
	for network in prior segan waveform; do $(BIN)/wavelldm train $$network --recipe shipped $(TABLE) || exit 1; done

android: $(VENV)/dev ## the Android app: build and test its core, compile the rest (needs Debian's JDK, junit4 and aapt)
	PYTHON=$(abspath $(BIN)/python) android/build.sh

clean: ## remove the environment and everything made by demo and tests
	rm -rf $(VENV) demo out notebooks/out android/build .pytest_cache

# One stamp per set of extras: `metrics` is enough for the demo, `dev` is everything for tests and notebooks, `peers`
# adds what benchmarks compare with.
$(VENV)/metrics $(VENV)/dev $(VENV)/peers: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than Python 3.10; name a newer one: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[$(@F)]'
	@touch $@
