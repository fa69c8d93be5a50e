# GNU make. `make help` lists the targets. Nothing is installed outside $(VENV) and build/.

PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8080
PYTEST_ARGS ?=
BENCH_ARGS ?=
SANITIZE ?= address,undefined
KQUEUE ?= shim
PYTHON_DEBUG ?= python3-dbg
LEAKS_ARGS ?= -m leaks
VALGRIND := valgrind -q --error-exitcode=9
# Between them they reach every file of layer 3.
VALGRIND_TESTS ?= tests/leaks/test_inventory_leaks.py $(addprefix tests/unit/, \
	test_conet_coroutines.py test_guest.py test_faults.py test_dump.py test_input_joints.py)

BIN := $(VENV)/bin
C_FILES := $(wildcard csrc/*.c csrc/*.h pycoronet/include/*.h)
PYTHON_FILES := $(wildcard pycoronet/*.py pycoronet/*/*.py pycoronet/*.pyi pycoronet/py.typed \
	pycoronet/include/*.h)
C_STYLE_FILES := $(wildcard csrc/*.[ch] pycoronet/include/*.h tests/c/*.[ch] tests/c_api/*.c \
	tests/faults/*.[ch] tests/coverage/*.c benchmarks/c/*.[ch] fuzz/*.[ch] examples/c_api/*.c)
LEAKS_PYTHON := build/leaks/venv/bin/python
KQSHIM_FILES := $(wildcard tests/kqshim/*.[ch] tests/kqshim/sys/*.h)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
BUILD_EXTENSION := $(BIN)/python setup.py --quiet build_ext

# pytest would swallow the report of a run that the sanitizer ends, so it goes into a file.
ASAN_REPORT := log_path=$(CURDIR)/build/asan/report

# Warnings are errors where changes are checked, not where people install.
ifneq ($(CI),)
export CORONET_WERROR ?= 1
endif

# What a command is run with to find the build that lies in a folder of build/, and what with
# to have libraries of the compiler loaded before all others.
ON = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/$(1)/lib
PRELOADED = LD_PRELOAD="$$(for name in $(1); do $(CC) -print-file-name=$$name.so; done | tr '\n' ' ')"

# The engine's tests on kqueue, also as systems have it that wake by a pipe or cap a wait.
define TEST_KQUEUE_IN_C
$(MAKE) --no-print-directory -C tests/c $(1) engines
$(MAKE) --no-print-directory -C tests/c $(1) engines \
	CPPFLAGS="-DKQUEUE_WAKES_BY_PIPE -DKQUEUE_MAX_WAIT_NS=3000000"
endef

# The switches that setup.py reads. Changing one makes the extension out of date.
SETTINGS := debug=$(CORONET_DEBUG) hard=$(CORONET_HARD_MODE) sanitize=$(CORONET_SANITIZE) \
	coverage=$(CORONET_COVERAGE) werror=$(CORONET_WERROR) cc=$(CC) cflags=$(CFLAGS)

# Who is not root can have networks in a user namespace, where the system lets them.
NETWORK_RIGHTS = $(shell [ "$$(id -u)" = 0 ] || \
	{ unshare --map-root-user --net true 2>/dev/null && echo unshare --map-root-user --net; })

.DELETE_ON_ERROR:
# What has a line in `make help` is no file.
.PHONY: FORCE $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name text; do printf '  %-15s %s\n' "$$name" "$$text"; done

run: build  ## Build everything and serve examples/cnhttpd.py (PORT=8080)
	@echo "Serving http://$(HOST):$(PORT)/ - try http://$(HOST):$(PORT)/mem-1000; Ctrl-C ends it."
	@exec $(BIN)/python examples/cnhttpd.py -b $(HOST) -p $(PORT)

build: $(VENV)/.built  ## Make the virtual environment and build the extension in place

test: build $(VENV)/.test-tools test-c  ## Run all tests: C first, then pytest
	$(BIN)/pytest $(PYTEST_ARGS)

test-c:  ## Run the C tests of layers 1 and 2 (no Python needed)
	$(MAKE) --no-print-directory -C tests/c
	$(MAKE) --no-print-directory -C fuzz replay

test-python: build $(VENV)/.test-tools  ## Run pytest alone (PYTEST_ARGS="-k name")
	$(BIN)/pytest $(PYTEST_ARGS)

test-kqueue: build/kqueue-$(KQUEUE)/.built $(VENV)/.test-tools  ## Run all on kqueue, on Linux (KQUEUE=)
	$(call TEST_KQUEUE_IN_C,KQUEUE=$(KQUEUE))
	PYCORONET_ENGINE=kqueue $(call ON,kqueue-$(KQUEUE)) $(BIN)/pytest $(PYTEST_ARGS)

# The debug and the sanitized builds, and the one with kqueue, lie beside the normal one, in
# build/, and come first on the path of the tests; the extension in the checkout stays what
# it was.
debug: build/debug/.built $(VENV)/.test-tools  ## Run pytest on an unoptimised build with asserts
	$(call ON,debug) $(BIN)/pytest $(PYTEST_ARGS)

hard: build/hard/.built $(VENV)/.test-tools  ## Run all tests in hard mode: what is rare, all the time
	$(MAKE) --no-print-directory -C tests/c CPPFLAGS=-DCORONET_HARD_MODE
	$(call ON,hard) $(BIN)/pytest $(PYTEST_ARGS)

hard-kqueue: build/hard-kqueue-$(KQUEUE)/.built $(VENV)/.test-tools  ## The same on kqueue, on Linux (KQUEUE=)
	$(MAKE) --no-print-directory -C tests/c KQUEUE=$(KQUEUE) engines CPPFLAGS=-DCORONET_HARD_MODE
	PYCORONET_ENGINE=kqueue $(call ON,hard-kqueue-$(KQUEUE)) $(BIN)/pytest $(PYTEST_ARGS)

asan: build/asan/.built $(VENV)/.test-tools  ## Run all tests under ASan and UBSan (SANITIZE=...)
	$(MAKE) --no-print-directory -C tests/c SANITIZE=$(SANITIZE)
	$(call TEST_KQUEUE_IN_C,KQUEUE=shim SANITIZE=$(SANITIZE))
	$(MAKE) --no-print-directory -C fuzz replay SANITIZE=$(SANITIZE)
	@rm -f build/asan/report.*
	$(call PRELOADED,libasan libubsan libstdc++) PYTHONMALLOC=malloc \
		UBSAN_OPTIONS=print_stacktrace=1 \
		ASAN_OPTIONS=$(ASAN_REPORT):detect_leaks=0:detect_stack_use_after_return=0 \
		$(call ON,asan) $(BIN)/pytest $(PYTEST_ARGS) || \
		{ cat build/asan/report.* 2>/dev/null; exit 1; }

# Each in an environment of its own; the C tests know no Python, and run once.
test-all: test-c  ## Run all tests with each Python from 3.10 to 3.14 that is found here
	@$(PYTHON) tests/find_pythons.py | { failed=; while read -r version python; do \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory test-python PYTHON="$$python" \
			VENV="build/venv-$$version" </dev/null || failed="$$failed $$version"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }; }

faults: build $(VENV)/.test-tools  ## Let each system call fail with each errno (FAULTS=quick, all)
	$(MAKE) --no-print-directory -C tests/faults PYTHON="$(abspath $(BIN))/python"

soak: build  ## Hold 19,700 connections, churn a million, attack; 20 min (SOAK=smoke)
	$(BIN)/python tests/soak/run.py $(SOAK:%=--%) $(SOAK_SECONDS:%=--seconds %) \
		$(SOAK_CONNECTIONS:%=--connections %) $(SOAK_CHURN:%=--churn %)

# What threads do together. A hub that Python drives is looked at as well: its GIL is made of a
# mutex and a condition, which the sanitizer sees.
TSAN_TESTS := $(addprefix tests/unit/,test_thread_races.py test_threads.py test_toolkit_threads.py \
	test_from_thread.py test_thread_pool.py test_server_threads.py)

tsan: build/tsan/.built $(VENV)/.test-tools  ## Look for data races with ThreadSanitizer (with gcc)
	$(MAKE) --no-print-directory -C tests/c SANITIZE=thread
	$(call TEST_KQUEUE_IN_C,KQUEUE=shim SANITIZE=thread)
	@rm -f build/tsan/report.*
	$(call PRELOADED,libtsan libstdc++) \
		TSAN_OPTIONS=log_path=$(CURDIR)/build/tsan/report:suppressions=$(CURDIR)/tests/c/tsan_suppressions \
		$(call ON,tsan) $(BIN)/pytest -k "not fork and not child" $(TSAN_TESTS) $(PYTEST_ARGS); \
		status=$$?; ! cat build/tsan/report.* 2>/dev/null && exit $$status

fuzz: build $(VENV)/.fuzz-tools  ## Fuzz the C core and the PROXY parser (FUZZ_SECONDS=, FUZZ_TARGETS=)
	$(MAKE) --no-print-directory -C fuzz run PYTHON=$(abspath $(BIN)/python)

networks: build $(VENV)/.test-tools  ## Run transfers over bad networks of our own (Linux, root)
	$(NETWORK_RIGHTS) $(BIN)/pytest -o faulthandler_timeout=60 tests/networks $(PYTEST_ARGS)

# kqueue's engine is run by the C tests alone. The leak tests would find coverage.py's own
# memory; of the others, those are left out that look at all that goes to stderr, where gcov
# complains when it cannot write, that count allocations or look whether memory grows, that
# look at the hardening, or at what the extension exports and imports, as gcov's functions are
# among that.
COVERAGE_WITHOUT := --ignore=tests/unit/test_hardening.py \
	--deselect=tests/test_source_rules.py::test_module_exports_its_init_function_alone \
	--deselect=tests/unit/test_fault_injection.py::test_every_function_that_is_imported_can_fail_or_has_a_reason \
	--deselect=tests/integration/test_two_hubs.py::test_two_hubs_with_thousands_of_connections_each \
	--deselect="tests/unit/test_exits.py::test_leaving_things_behind[no descriptor left]" \
	--deselect=tests/unit/test_server_life.py::test_a_privileged_port_is_one_clear_line \
	--deselect=tests/unit/test_callbacks_listener.py::test_a_connection_that_is_lost_for_want_of_memory_is_told

coverage: build/coverage/.built $(VENV)/.coverage-tools  ## Say which lines the tests run, and which not
	@rm -rf build/coverage/python build/coverage/python.json
	@find build/coverage -name '*.gcda' -delete
	@mkdir -p build/coverage/python
	$(MAKE) --no-print-directory -C tests/c COVERAGE=1 KQUEUE=shim \
		BUILD=$(CURDIR)/build/coverage/tests-c
	$(MAKE) --no-print-directory -C tests/c COVERAGE=1 KQUEUE=shim engines \
		CPPFLAGS="-DKQUEUE_WAKES_BY_PIPE -DKQUEUE_MAX_WAIT_NS=3000000" \
		BUILD=$(CURDIR)/build/coverage/tests-c/pipe
	$(call ON,coverage):$(CURDIR)/tests/coverage \
		$(BIN)/coverage run -m pytest -m "not leaks" $(COVERAGE_WITHOUT) $(PYTEST_ARGS); \
		echo $$? >build/coverage/status  # a test may fail: the report comes all the same
	-$(BIN)/coverage combine --quiet  # a process that was killed may leave half a file
	$(BIN)/coverage json --quiet -o build/coverage/python.json
	$(BIN)/python tests/coverage/report.py && exit $$(cat build/coverage/status)

# References are counted exactly by a debug build of CPython; things without a reference by
# the counters of a debug build of ours, which `make debug` has on any Python.
leaks: build/leaks/.built  ## Run the leak tests on a debug build of CPython (PYTHON_DEBUG=)
	$(call ON,leaks) $(LEAKS_PYTHON) -m pytest $(LEAKS_ARGS) $(PYTEST_ARGS)

# What is not under the stack of a coroutine is checked in full by valgrind-c.
valgrind: build $(VENV)/.test-tools valgrind-c  ## Run the C tests and some of pytest under valgrind
	LEAK_ROUNDS=0 PYTHONMALLOC=malloc $(VALGRIND) --leak-check=no \
		--suppressions=tests/valgrind_suppressions \
		$(BIN)/python -m pytest -o faulthandler_timeout=0 $(VALGRIND_TESTS) $(PYTEST_ARGS)

valgrind-c:  ## Run the C tests under valgrind, which also finds what they do not free
	@command -v valgrind >/dev/null || { echo "needed: valgrind" >&2; exit 1; }
	$(MAKE) --no-print-directory -C tests/c RUNNER="$(VALGRIND) --leak-check=full \
		--errors-for-leak-kinds=definite,indirect,possible"

check-platforms: build $(VENV)/.platforms-tools  ## Compile and link for macOS and FreeBSD (with zig)
	$(BIN)/python tests/platforms/check.py

check-package: build $(VENV)/.package-tools  ## Build sdist and wheel, check and test them (PACKAGE_TESTS=)
	$(BIN)/python tests/package/check.py $(PACKAGE_TESTS)

# All pages, and the reference out of the docstrings. It needs no network once its tools are there.
docs: build $(VENV)/.docs-tools  ## Build the documentation: build/docs/index.html
	$(BIN)/sphinx-build -E -W --keep-going -q -c docs . build/docs

bench: build  ## Measure beside gevent, eventlet, asyncio and uvloop (BENCH_ARGS="--help")
	$(MAKE) --no-print-directory -C benchmarks run PYTHON="$(abspath $(BIN))/python" \
		ARGS="$(BENCH_ARGS)"

bench-c:  ## Measure layers 1 and 2 alone, in C, beside libevent, libev and libuv (BENCH_ARGS=)
	$(MAKE) --no-print-directory -C benchmarks layers PYTHON="$(PYTHON)" ARGS="$(BENCH_ARGS)"

lint: style types  ## Check formatting, style, types and spelling

style: $(VENV)/.lint-tools  ## Check formatting, style and spelling alone, in seconds
	@$(BIN)/clang-format --dry-run -Werror $(C_STYLE_FILES) $(KQSHIM_FILES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: build $(VENV)/.lint-tools  ## Check the types alone: package, stubs, examples
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	PYTHONPATH=$(CURDIR) $(BIN)/pyright --pythonpath $(BIN)/python --verifytypes pycoronet \
		--ignoreexternal >$(VENV)/types || { cat $(VENV)/types; exit 1; }
	$(BIN)/python -m mypy.stubtest pycoronet._coronet

format: $(VENV)/.lint-tools  ## Put the C and Python files into form
	$(BIN)/clang-format -i $(C_STYLE_FILES) $(KQSHIM_FILES)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

wheel: $(VENV)/.wheel-tools  ## Build the sdist, and a wheel from it, into dist/
	$(BIN)/python -m build --outdir dist

clean:  ## Remove everything that was built, the virtual environment too
	rm -rf $(VENV) build dist benchmarks/build pycoronet.egg-info pycoronet/*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# From here on: files that record what has been done, so that nothing is done twice.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("needed: Python >= 3.10")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1" "setuptools>=77" greenlet
	@touch $@

# The editable installation names the checkout; it compiles nothing by itself, because the
# extension is built first and its own build step then finds it up to date.
$(VENV)/.built: $(VENV)/.made $(VENV)/.settings $(C_FILES) csrc setup.py pyproject.toml
	$(BUILD_EXTENSION) --inplace --force
	@if [ ! -f $(VENV)/.installed ] || [ pyproject.toml -nt $(VENV)/.installed ]; then \
		PYTHONWARNINGS=ignore $(PIP) install --no-build-isolation --editable . && \
			touch $(VENV)/.installed; fi
	@touch $@

# Written only when its content changes: then the extension is older than it.
$(VENV)/.settings: FORCE | $(VENV)/.made
	@echo '$(SETTINGS)' | cmp -s - $@ || echo '$(SETTINGS)' > $@

# Behind the build, so that no two pips work on one environment at a time.
$(VENV)/.test-tools: pyproject.toml $(VENV)/.made | $(VENV)/.built
	$(PIP) install --group test
	@touch $@

# Each has the group of its name in pyproject.toml.
$(VENV)/.%-tools: pyproject.toml $(VENV)/.made | $(VENV)/.test-tools
	$(PIP) install --group $*
	@touch $@

# Not exported: the normal build, which comes before, would be made with them too.
build/debug/.built: SWITCHES := CORONET_DEBUG=1
build/hard/.built: SWITCHES := CORONET_DEBUG=1 CORONET_HARD_MODE=1
build/hard-kqueue-$(KQUEUE)/.built: SWITCHES := CORONET_DEBUG=1 CORONET_HARD_MODE=1 \
	CORONET_KQUEUE=$(KQUEUE)
build/asan/.built: SWITCHES := CORONET_DEBUG=1 CORONET_SANITIZE=$(SANITIZE) \
	$(if $(filter Linux,$(shell uname -s)),CORONET_KQUEUE=$(KQUEUE))
build/asan/.built: $(KQSHIM_FILES)
build/leaks/.built: SWITCHES := CORONET_DEBUG=1
build/leaks/.built: private BUILD_EXTENSION := $(LEAKS_PYTHON) setup.py --quiet build_ext
build/leaks/.built: build/leaks/.test-tools
build/tsan/.built: SWITCHES := CORONET_SANITIZE=thread
build/coverage/.built: SWITCHES := CORONET_COVERAGE=1
build/coverage/.built: BUILD_OPTIONS = --build-temp $(@D)/objects
build/coverage/.built: tests/coverage/failing_calls.c
build/kqueue-$(KQUEUE)/.built: SWITCHES := CORONET_KQUEUE=$(KQUEUE)
build/kqueue-$(KQUEUE)/.built build/hard-kqueue-$(KQUEUE)/.built: $(KQSHIM_FILES)
build/debug/.built build/hard/.built build/asan/.built build/tsan/.built build/coverage/.built \
		build/leaks/.built build/kqueue-$(KQUEUE)/.built build/hard-kqueue-$(KQUEUE)/.built: \
		$(VENV)/.built $(C_FILES) $(PYTHON_FILES)
	@mkdir -p $(@D)/lib/pycoronet
	tar -cf - $(PYTHON_FILES) | tar -xf - -C $(@D)/lib
	$(SWITCHES) $(BUILD_EXTENSION) --force --build-lib $(@D)/lib $(BUILD_OPTIONS)
	@touch $@

# The wheels of greenlet are for CPython without its checks.
build/leaks/.test-tools: pyproject.toml
	@command -v $(PYTHON_DEBUG) >/dev/null || { echo "needed: a debug build of CPython" \
		"(Debian's python3-dbg), or PYTHON_DEBUG=/path/to/python" >&2; exit 1; }
	$(PYTHON_DEBUG) -m venv build/leaks/venv
	$(LEAKS_PYTHON) -W ignore -m pip --disable-pip-version-check --quiet install \
		--upgrade "pip>=25.1" "setuptools>=77"
	$(LEAKS_PYTHON) -W ignore -m pip --disable-pip-version-check --quiet install \
		--no-binary greenlet greenlet
	$(LEAKS_PYTHON) -W ignore -m pip --disable-pip-version-check --quiet install --group test
	@touch $@
