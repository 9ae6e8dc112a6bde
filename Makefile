# SPDX-License-Identifier: GPL-2.0
# `make help` lists what can be made. V=1 shows every command.

KDIR  ?= /lib/modules/$(shell uname -r)/build
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/socklnd
run   := scripts/in-toolchain
# The runners start outside, where the machine's own cargo is, and enter the tool chain themselves.
python = $(if $(shell command -v python3),,$(run))

release = $(shell cat '$(KDIR)/include/config/kernel.release' 2>/dev/null)
# The Lustre tree that the module is for; without one, it is the standalone flavour.
LUSTRE ?=
lustre := $(abspath $(LUSTRE))
flavour = $(if $(lustre),-lnet)
# Seen by scripts/in-toolchain.
export SOCKLND_LUSTRE := $(lustre)
# Where a module is built: out of the source tree, so that several kernels and both flavours don't collide.
OUT   ?= $(CURDIR)/build/$(or $(release),module)$(flavour)
GOALS ?= modules

.PHONY: module
module: ## build the module for the kernel in KDIR (default: the running one); for Lustre with LUSTRE=tree
	@variables=$$(scripts/check-kdir '$(KDIR)') && lnet=$$(scripts/check-lustre '$(lustre)' '$(KDIR)') && \
	mkdir -p '$(OUT)' && \
	eval "$(MAKE) -C '$(KDIR)' M='$(CURDIR)' MO='$(abspath $(OUT))' $$variables $$lnet $(GOALS)"

.PHONY: modules_install modules_uninstall
modules_install: ## install that module (root; INSTALL_MOD_PATH names another root)
	@$(if $(lustre),scripts/override add '$(release)')
	@$(MAKE) --no-print-directory module GOALS=modules_install $(if $(lustre),INSTALL_MOD_DIR=updates/socklnd)
	@$(if $(lustre),scripts/override show '$(release)')
modules_uninstall: ## remove it, of both flavours: modprobe finds Lustre's own driver again, if it is there
	@scripts/override remove '$(release)'

PREFIX ?= /usr/local
share   = $(DESTDIR)$(PREFIX)/share
.PHONY: install
install: host ## install socklctl, its manual pages and completions (PREFIX, DESTDIR say where)
	@install -D -t '$(DESTDIR)$(PREFIX)/sbin' build/host/socklctl
	@install -D -m 644 -t '$(share)/man/man1' build/host/man/*.1
	@install -D -m 644 build/host/completions/socklctl.bash '$(share)/bash-completion/completions/socklctl'
	@install -D -m 644 -t '$(share)/fish/vendor_completions.d' build/host/completions/socklctl.fish
	@install -D -m 644 -t '$(share)/zsh/site-functions' build/host/completions/_socklctl

# A module for one of our kernels: the same as above, with that kernel's tools.
# $(call for-kernel,KERNEL,FOLDER,VARIABLES); with the plus sign, make knows that the line runs make.
define for-kernel
	@scripts/setup $(1)
	+@$(run) $(MAKE) --no-print-directory module KDIR='$(cache)/$(1)/build' OUT='$(CURDIR)/build/$(or $(2),$(1))$(flavour)' $(3)
endef

.PHONY: stock debug um-module um-debug host
stock: ## build/stock/ksocklnd.ko, for Debian's own kernel
	$(call for-kernel,stock)
debug: ## build/debug/ksocklnd.ko, for the tests' kernel
	$(call for-kernel,debug)
um-module: ## build/um/ksocklnd.ko, for User Mode Linux
	$(call for-kernel,um)
um-debug: ## build/um-debug/ksocklnd.ko, for User Mode Linux with checkers
	$(call for-kernel,um-debug)
host: ## build/host/*: the programs that run beside the kernel, linked statically
	@scripts/setup toolchain
	@scripts/build-host

# The module for LNet, and what plays LNet's part in tests.
.PHONY: debug-lnet um-debug-lnet
debug-lnet um-debug-lnet: %-lnet: ## build/%-lnet/ksocklnd.ko, for the shim that plays LNet's part in tests
	@scripts/setup $*
	+@$(run) scripts/build-shim $*
	@$(MAKE) --no-print-directory $* LUSTRE='$(CURDIR)/build/$*-shim'

.PHONY: test-builds
# The kernels take all processors, one after the other; a module takes one, so several are built side by side.
test-builds:
	@scripts/setup toolchain stock debug um-debug
	@$(MAKE) --no-print-directory --output-sync=target -j$$(nproc) stock debug um-debug um-debug-lnet host

.PHONY: demo demo-gateway test test-ipv6 kunit lustre soak fuzz bench defects shell
demo: stock host ## show the module at work in two virtual machines
demo-gateway: stock host ## show in three of them how one passes on messages for the others
test: test-builds ## run every test (ARGS=... goes to tests/run)
kunit: debug host ## run the module's own unit tests
shell: stock host ## a shell in a virtual machine with the module
demo demo-gateway test kunit shell:
	@$(python) tests/run $@ $(ARGS)
# LUSTRE_ROOT is the root folder of the system that the tree was built on, if that is another one.
lustre: stock host ## run Lustre's own LNet over the driver (LUSTRE=a built tree, ARGS=... goes to tests/run)
	@$(MAKE) --no-print-directory stock LUSTRE=
	@SOCKLND_LUSTRE_ROOT='$(abspath $(LUSTRE_ROOT))' $(python) tests/run lustre $(ARGS)
soak: stock debug um-debug host ## run the scenarios that take long
	@$(python) tests/run netns --filter soak
	@$(python) tests/run two-node --filter soak
test-ipv6: debug um-debug host ## run every scenario over IPv6, of which test runs a part
	@$(python) tests/run netns --filter ipv6
fuzz: ## look long for inputs that break the parsers (ARGS=... goes to fuzz/run)
	@scripts/setup toolchain
	@$(python) fuzz/run $(ARGS)
defects: ## put old bugs back, one at a time, and see the tests find them (ARGS=... goes to tests/defects/run)
	@scripts/setup um-debug
	@$(python) tests/defects/run $(ARGS)
bench: ## measure against bare kernel TCP, on the fastest platform at hand (ARGS=... goes to bench/run)
	@scripts/setup toolchain
	@$(python) bench/run $(ARGS)

.PHONY: doc check
doc: ## build/doc/ksocklnd: the crate's documentation
	$(call for-kernel,stock,rustdoc,SOCKLND_DOC='$(CURDIR)/build/doc')
check: ## formatting, clippy, documentation, shellcheck, where unsafe stands; every warning is an error
	@scripts/setup stock
	@scripts/check

.PHONY: clean distclean help
clean: ## remove what was built here
	@rm -rf build
distclean: clean ## and the kernels and tools in the cache
	@scripts/setup remove
help: ## this list
	@sed -n 's/^\([a-z_-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name what; do \
		printf '  %-16s %s\n' "$$name" "$$what"; done
