# uring: build, test, install. `make help` lists the targets.
#
# One set of rules serves every variant of the build: VARIANT picks the
# directory under build/, a few extra flags, and how the suite is started.
# `make asan` and its like only call `make test VARIANT=...`.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

LUA     ?= lua5.4
PREFIX  ?= /usr/local
SCRIPT  ?= examples/tour.lua

# Seconds until a suite that hangs is killed.
SUITE_TIMEOUT ?= $(or $(timeout_$(VARIANT)),600)

SHAREDIR = $(DESTDIR)$(PREFIX)/share/lua/5.4
LIBDIR   = $(DESTDIR)$(PREFIX)/lib/lua/5.4
BINDIR   = $(DESTDIR)$(PREFIX)/bin

# ---------------------------------------------------------------- variants

B := build$(if $(VARIANT),/$(VARIANT))

# Leaks are reported after lua_close has unloaded the module; nodelete keeps
# it mapped, so that they still have names and lines.
cflags_asan     := -O1 -fsanitize=address,undefined -fno-omit-frame-pointer
ldflags_asan    := -fsanitize=address,undefined -Wl,-z,nodelete
cflags_gcstress := -DURING_GCSTRESS
cflags_valgrind := -DURING_VALGRIND
cflags_werror   := -Werror

# How the suite is started.
run_         = $(LUA)
run_asan     = URING_SLOW=1 $(asan_lua)
run_gcstress = URING_SLOW=1 URING_GCSTRESS=1 $(LUA)
run_valgrind = URING_SLOW=1 URING_VALGRIND=1 valgrind -q --error-exitcode=99 \
  --leak-check=full --errors-for-leak-kinds=definite \
  --show-leak-kinds=definite --num-callers=25 --keep-debuginfo=yes \
  --child-silent-after-fork=yes --vgdb=no $(LUA)

timeout_asan     := 1200
timeout_gcstress := 1200
timeout_valgrind := 3600

# And until one of its files is.
limit_         := 150
limit_asan     := 400
limit_gcstress := 400
limit_valgrind := 1200

# ------------------------------------------------------------------- files

core_src  := $(wildcard c/*.c)
core_obj  := $(core_src:%.c=$(B)/%.o)
core      := $(B)/uring/core.so
readline  := $(B)/uring/readline.so
readline_obj := $(patsubst %.c,$(B)/%.o,$(wildcard c/prompt/*.c))
helpers   := $(patsubst spec/support/%.c,$(B)/spec/%.so, \
               $(wildcard spec/support/*.c))
asan_lua  := $(CURDIR)/build/asan/bin/lua5.4
bench_bin := $(patsubst spec/bench/%.c,$(B)/bench/%, \
               $(wildcard spec/bench/*.c))
all_c     := $(wildcard c/*.c c/*/*.c spec/support/*.c spec/bench/*.c)
all_h     := $(wildcard c/*.h c/*/*.h spec/support/*.h spec/bench/*.h)

# Every spec, whatever its folder, except what only serves or measures.
specs = $(shell find spec \( -path spec/bench -o -path spec/support \) \
  -prune -o \( -name '*_spec.lua' -o -path 'spec/regress/*.lua' \) -print \
  | sort)

# ------------------------------------------------------------------- flags

# Asked for only when a recipe needs it, since deps may have to install
# pkg-config first, and then remembered.
pkg_cflags = $(eval pkg_cflags := $(shell \
  pkg-config --cflags lua5.4 liburing))$(pkg_cflags)
pkg_libs = $(eval pkg_libs := $(shell pkg-config --libs liburing))$(pkg_libs)

warn    := -Wall -Wextra -Wpedantic -Wshadow
# Not -Ic: c/sched.h would stand in for the system's.
defs    := -D_GNU_SOURCE -iquote c
compile  = $(CC) -std=gnu11 -O2 -g -fPIC -fno-plt $(warn) \
  $(cflags_$(VARIANT)) $(pkg_cflags) $(CPPFLAGS) $(CFLAGS)
link     = $(CC) -shared $(ldflags_$(VARIANT)) $(CFLAGS) $(LDFLAGS)

# In place: this build and these sources before whatever the user has set. The
# versioned names, which `luarocks path` sets, would win over ours.
lua_path   = $(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua
lua_cpath  = $(CURDIR)/$(B)/?.so
test_cpath = $(lua_cpath);$(CURDIR)/$(B)/spec/?.so
path_tail  := $(or $(LUA_PATH_5_4),$(LUA_PATH),;)
cpath_tail := $(or $(LUA_CPATH_5_4),$(LUA_CPATH),;)
in_place    = LUA_PATH='$(lua_path);$(path_tail)' \
  LUA_CPATH='$(lua_cpath);$(cpath_tail)'
unexport LUA_PATH_5_4 LUA_CPATH_5_4

# ------------------------------------------------------------ dependencies

pkgs_base     := gcc libc6-dev make pkg-config liburing-dev lua5.4 \
                 liblua5.4-dev lua-busted netbase
pkgs_lint     := lua-check clang-format clang-tidy cppcheck
pkgs_valgrind := valgrind
pkgs_rock     := luarocks
pkgs_doc      := lua-ldoc
pkgs_peers    := redis-server redis-tools curl
pkgs_bench    := lua-luv lua-cqueues fio $(pkgs_peers)

# A goal needs the base and its own set; `make deps` alone takes them all,
# and `make deps SETS="lint rock"` the base and those.
SETS ?= $(if $(filter deps,$(MAKECMDGOALS)),lint valgrind rock bench,\
  $(MAKECMDGOALS:lint-%=lint))
pkgs  = $(pkgs_base) $(foreach s,$(SETS),$(pkgs_$(s)))

# A package is there when the command it is named after is, or when dpkg
# says so. Everything goes to stderr: `make env` is read by a shell.
deps:
	@{ rest=; missing=; \
	for p in $(pkgs); do \
	  command -v $$p >/dev/null || rest="$$rest $$p"; \
	done; \
	[ "$$rest" ] || exit 0; \
	command -v dpkg-query >/dev/null || { \
	  echo "deps: no dpkg here to ask for$$rest; going on"; exit 0; }; \
	have=" $$(dpkg-query -W -f='$${db:Status-Status}:$${Package} ' \
	  $$rest 2>/dev/null) "; \
	for p in $$rest; do \
	  case $$have in *" installed:$$p "*) ;; \
	    *) missing="$$missing $$p" ;; esac; \
	done; \
	[ "$$missing" ] || exit 0; \
	cmd="apt-get update && apt-get install -y --no-install-recommends"; \
	cmd="DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; \
	  $$cmd$$missing"; \
	if [ "$$(id -u)" = 0 ]; then sh -c "$$cmd" && exit 0; \
	else sudo sh -c "$$cmd" && exit 0; fi; \
	echo "deps: could not install what is missing. Run as root:"; \
	echo "  apt-get update && apt-get install -y$$missing"; \
	exit 1; } >&2 </dev/null

# ------------------------------------------------------------------- build

built := $(core) $(readline)

all build: $(built)

$(core): $(core_obj)
	@mkdir -p $(@D)
	$(link) -o $@ $(core_obj) $(pkg_libs)

# Takes the library, if there is one, when it is loaded.
$(readline): $(readline_obj)
	@mkdir -p $(@D)
	$(link) -o $@ $(readline_obj) -ldl

# Only luaopen_uring_core is for others to see.
$(B)/c/%.o: c/%.c $(B)/flags
	@mkdir -p $(@D)
	$(compile) $(defs) -fvisibility=hidden -MMD -MP -c -o $@ $<

$(B)/spec/%.so: spec/support/%.c $(B)/flags
	@mkdir -p $(@D)
	$(compile) $(defs) -MMD -MP -shared $(ldflags_$(VARIANT)) $(LDFLAGS) \
	  -o $@ $< $(pkg_libs)

$(B)/bench/%: spec/bench/%.c $(B)/flags
	@mkdir -p $(@D)
	$(compile) -MMD -MP $(LDFLAGS) -o $@ $< $(pkg_libs) -lpthread

# Changes only when the flags do, so that other CFLAGS mean a new build.
$(B)/flags: FORCE | deps
	@mkdir -p $(@D)
	@pkg-config --atleast-version=2.3 liburing || { \
	  echo "uring needs liburing 2.3 or newer" >&2; exit 1; }
	@echo '$(subst ','\'',$(compile) $(link))' >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

FORCE:

-include $(core_obj:.o=.d) $(readline_obj:.o=.d) $(helpers:.so=.d) $(bench_bin:=.d)

# --------------------------------------------------------------------- run

run: deps $(built)
	@$(in_place) $(LUA) $(SCRIPT) $(ARGS)

env: deps $(built)
	@echo "unset LUA_PATH_5_4 LUA_CPATH_5_4"
	@echo "export LUA_PATH='$(lua_path);$(path_tail)'"
	@echo "export LUA_CPATH='$(lua_cpath);$(cpath_tail)'"
	@echo "export PATH='$(CURDIR)/lua/bin':\"\$$PATH\""

bench: deps $(built) $(bench_bin) $(helpers)
	@LUA_PATH='$(lua_path);$(path_tail)' \
	LUA_CPATH='$(test_cpath);$(cpath_tail)' BENCH_BIN='$(CURDIR)/build/bench' \
	  $(LUA) spec/bench/run.lua $(ARGS)

# -------------------------------------------------------------------- test

# busted is a script for `lua`, which may be any version: it is handed to
# ours. The timeouts are for a hang. PATH lets a Lua that a spec starts be the
# variant's too.
test: deps $(built) $(helpers) $(if $(filter asan,$(VARIANT)),$(asan_lua))
	@LUA_PATH='$(lua_path);$(path_tail)' \
	LUA_CPATH='$(test_cpath);$(cpath_tail)' \
	PATH="$(CURDIR)/$(B)/bin:$$PATH" \
	LPATH='$(lua_path)' CPATH='$(test_cpath)' \
	RUN='env $(run_$(VARIANT))' ARGS='$(ARGS)' JOBS='$(JOBS)' LIMIT='$(limit_$(VARIANT))' \
	timeout --foreground -k 10 $(SUITE_TIMEOUT) \
	  sh spec/support/suite.sh $(or $(SPEC),$(specs))

asan gcstress valgrind: deps
	@$(MAKE) test VARIANT=$@

# The stock interpreter, with the sanitizer's library loaded first. That
# library breaks programs of others (ps hangs, stat fails), so a constructor
# hides the variable from whatever this Lua starts.
asan_opts  := detect_leaks=1:strict_string_checks=1
ubsan_opts := halt_on_error=1:print_stacktrace=1

$(asan_lua): Makefile | deps
	@mkdir -p $(@D)
	@printf '%s\n' '#include <stdlib.h>' \
	  '__attribute__((constructor)) static void hide(void)' \
	  '{ unsetenv("LD_PRELOAD"); }' | \
	  $(CC) -shared -fPIC -x c -o $(@D)/hide.so -
	@printf '%s\n' '#!/bin/sh' "exec env \
	  LD_PRELOAD=\"$$($(CC) -print-file-name=libasan.so) $(@D)/hide.so\" \
	  ASAN_OPTIONS=\"$(asan_opts):\$$ASAN_OPTIONS\" \
	  UBSAN_OPTIONS=\"$(ubsan_opts):\$$UBSAN_OPTIONS\" \
	  $$(command -v $(LUA)) \"\$$@\"" >$@
	@chmod +x $@

# -------------------------------------------------------------------- lint

lint_lua := $(wildcard lua lua/bin/uring spec examples rockspec/*.rockspec)

lint: lint-rockspec lint-docs lint-lua lint-format lint-compile lint-cppcheck lint-tidy

lint-rockspec: deps
	$(LUA) spec/support/check_rockspec.lua rockspec/uring-scm-1.rockspec

lint-docs: deps $(built)
	@$(in_place) $(LUA) spec/support/check_docs.lua

lint-lua: deps
	luacheck -q --no-color $(lint_lua)

lint-format: deps
	clang-format --dry-run --Werror $(all_c) $(all_h)

lint-compile: deps
	$(MAKE) lint-objects VARIANT=werror

lint-objects: $(built) $(helpers) $(bench_bin)

# cppcheck cannot see that a function in another file never returns, and goes
# on with the null it tested for; clang-tidy looks after those.
lint-cppcheck: deps
	cppcheck -q -j $$(nproc) --std=c11 --library=lua,posix,gnu \
	  --enable=warning,performance,portability --inline-suppr \
	  --suppress=nullPointerRedundantCheck --suppress=ctunullpointer \
	  --suppress=invalidPointerCast --suppress=readdirCalled --suppress=unmatchedSuppression \
	  --error-exitcode=1 -D_GNU_SOURCE $(all_c)

lint-tidy: deps
	printf '%s\n' $(all_c) | xargs -P $$(nproc) -I {} \
	  clang-tidy --quiet --warnings-as-errors='*' {} -- \
	  -std=gnu11 $(defs) $(pkg_cflags) -include spec/support/noreturn.h

# ------------------------------------------------------------ documentation

# All of it from the sources' own comments.
doc: deps $(built)
	@mkdir -p build/doc
	ldoc --quiet --ignore --project uring --title uring --dir build/doc/html \
	  lua/uring
	$(in_place) $(LUA) lua/bin/uring --reference >build/doc/reference.md
	$(in_place) $(LUA) lua/bin/uring --types >build/doc/uring.d.lua
	@echo "doc: build/doc/html/index.html, build/doc/reference.md," \
	  "build/doc/uring.d.lua"

# ----------------------------------------------------------------- install

install: deps $(built)
	set -e; for f in $$(cd lua && find uring -name '*.lua'); do \
	  install -D -m 644 "lua/$$f" "$(SHAREDIR)/$$f"; \
	done
	install -D -m 755 $(core) "$(LIBDIR)/uring/core.so"
	install -D -m 755 $(readline) "$(LIBDIR)/uring/readline.so"
	install -d "$(BINDIR)"
	{ echo '#!/usr/bin/env $(LUA)'; \
	  echo 'package.path = "$(PREFIX)/share/lua/5.4/?.lua;$(PREFIX)/share/lua/5.4/?/init.lua;" .. package.path'; \
	  echo 'package.cpath = "$(PREFIX)/lib/lua/5.4/?.so;" .. package.cpath'; \
	  tail -n +2 lua/bin/uring; } >"$(BINDIR)/uring"
	chmod 755 "$(BINDIR)/uring"
	install -d "$(DESTDIR)$(PREFIX)/share/uring/types"
	$(in_place) $(LUA) lua/bin/uring --types \
	  >"$(DESTDIR)$(PREFIX)/share/uring/types/uring.d.lua"

# luarocks compiles beside the sources, so it works on a copy; what it
# installs is then used from a folder where nothing of ours is in sight.
rock: deps
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	mkdir "$$tmp/src" "$$tmp/elsewhere"; \
	cp -R c lua rockspec Makefile LICENSE "$$tmp/src"; \
	cd "$$tmp/src"; \
	luarocks --lua-version 5.4 make --deps-mode none --tree "$$tmp/tree" \
	  rockspec/uring-scm-1.rockspec; \
	cd "$$tmp/elsewhere"; \
	share="$$tmp/tree/share/lua/5.4"; \
	export LUA_PATH="$$share/?.lua;$$share/?/init.lua"; \
	export LUA_CPATH="$$tmp/tree/lib/lua/5.4/?.so"; \
	$(LUA) -e 'local u = require "uring"; assert(u.op.nop() == 0)'; \
	test "$$("$$tmp/tree/bin/uring" -e 'print(uring.now() > 0)')" = true; \
	test -s "$$tmp/tree"/lib/luarocks/rocks-5.4/uring/scm-1/types/uring.d.lua; \
	echo "rock: built, installed, loaded and used"

clean:
	rm -rf build

help:
	@echo 'make            build/uring/core.so, build/uring/readline.so'
	@echo 'make run        the guided tour; SCRIPT=x.lua ARGS="..." runs x.lua'
	@echo 'make test       the whole suite; SPEC=file for one, ARGS for busted'
	@echo 'make asan       the suite under AddressSanitizer and UBSan'
	@echo 'make valgrind   the suite under valgrind'
	@echo 'make gcstress   the suite with a full collection at every await'
	@echo 'make bench      benchmarks beside their peers; ARGS="name ..."'
	@echo 'make lint       luacheck, clang-format, -Werror, cppcheck, clang-tidy'
	@echo 'make doc        build/doc: LDoc pages, a reference, type stubs'
	@echo 'make env        for a shell: eval "$$(make -s env)"'
	@echo 'make install    into PREFIX=$(PREFIX), under DESTDIR if set'
	@echo 'make rock       builds and tries the rock in a temporary tree'
	@echo 'make deps       installs what the targets need; SETS="lint rock"'
	@echo 'make clean      removes build/'

.PHONY: all build deps run env bench test asan gcstress valgrind lint \
  lint-rockspec lint-docs lint-lua lint-format lint-compile lint-objects \
  lint-cppcheck lint-tidy install rock doc clean help FORCE
