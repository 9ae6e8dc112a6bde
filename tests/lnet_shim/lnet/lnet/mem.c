// SPDX-License-Identifier: GPL-2.0
/*
 * Memory for payloads, of any kind and cut to any pieces, what is in it, and what becomes of it.
 *
 * A memory belongs to one message or operation, which frees it.
 */
#include <linux/highmem.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "shim.h"

/* What payloads are cut out of. A prime, so that no power of two that goes astray finds the same bytes. */
#define PATTERN 65521
static u8 *pattern;

/* What memory holds that a payload must not reach, and what it holds when it was given back. */
#define GUARD 0xa5
#define POISON 0xdb

/* The longest fragments. */
static const u32 cuts[] = { 4096, 1001, 4095, 97, 513, 4096, 7 };
/* Memory that comes from kmalloc at most. */
#define MOST_SLAB (96 * 1024)

int shim_pattern_init(void)
{
	u64 state = 0x9e3779b97f4a7c15ULL;
	u32 i;

	pattern = vmalloc(PATTERN);
	if (!pattern)
		return -ENOMEM;
	for (i = 0; i < PATTERN; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		pattern[i] = state >> 24;
	}
	return 0;
}

void shim_pattern_exit(void)
{
	vfree(pattern);
}

static u32 pattern_start(u64 seed)
{
	seed *= 0xff51afd7ed558ccdULL;
	seed ^= seed >> 33;
	return do_div(seed, PATTERN);
}

/* Cuts memory to pieces, none of which crosses a page. Returns how many, at most LNET_MAX_IOV. */
static unsigned int cut_up(struct shim_mem *mem, void *start, u32 cut)
{
	void *at = start;
	u32 left = mem->total;
	unsigned int nr = 0;

	while (left) {
		u32 len = min3(left, cut, (u32)(PAGE_SIZE - offset_in_page(at)));

		if (nr == LNET_MAX_IOV)
			return nr + 1;
		if (mem->kiov) {
			struct page *page = mem->kind == SHIM_VMALLOC ? vmalloc_to_page(at) : virt_to_page(at);

			bvec_set_page(&mem->kiov[nr], page, len, offset_in_page(at));
		}
		nr++;
		at += len;
		left -= len;
	}
	return nr;
}

static bool get_pages(struct shim_mem *mem, u32 cut, gfp_t gfp)
{
	u32 left = mem->total;

	while (left) {
		u32 len = min(left, cut);
		struct page *page = alloc_page(gfp);

		if (!page)
			return false;
		bvec_set_page(&mem->kiov[mem->nr], page, len, mem->nr * 37 % (PAGE_SIZE - len + 1));
		mem->nr++;
		left -= len;
	}
	return true;
}

/* Applies to the bytes from `from` on. */
static void each_piece(struct shim_mem *mem, u32 from, u32 len, void (*work)(void *context, void *at, u32 len), void *context)
{
	unsigned int i;

	for (i = 0; i < mem->nr && len; i++) {
		struct bio_vec *piece = &mem->kiov[i];
		u32 skip = min(from, piece->bv_len);
		u32 some = min(piece->bv_len - skip, len);

		from -= skip;
		if (some) {
			void *page = kmap_local_page(piece->bv_page);

			work(context, page + piece->bv_offset + skip, some);
			kunmap_local(page);
		}
		len -= some;
	}
}

static void set_bytes(void *context, void *at, u32 len)
{
	memset(at, *(u8 *)context, len);
}

static void set_all(struct shim_mem *mem, u8 value)
{
	each_piece(mem, 0, mem->total, set_bytes, &value);
}

/* Memory for `len` bytes, of a form that depends on `seed`, as the kind does if it is -1. All of it is guarded. */
struct shim_mem *shim_mem_new(int kind, u32 len, u64 seed, gfp_t gfp)
{
	struct shim_mem *mem = kzalloc(sizeof(*mem), GFP_NOFS | __GFP_NOFAIL);
	u32 cut = cuts[seed % ARRAY_SIZE(cuts)];
	u32 start = seed % 5 * 13;

	mem->len = len;
	mem->kind = kind < 0 ? seed % SHIM_KINDS : kind;
	if (mem->kind == SHIM_SLAB && len > MOST_SLAB)
		mem->kind = SHIM_VMALLOC;
	/* As many fragments as there can be leave no room for anything else. */
	mem->skip = len > LNET_MTU - 3 * PAGE_SIZE ? 0 : seed % 17;
	mem->total = mem->skip + len + (mem->skip ? seed % 257 : 0);
	if (len > LNET_MTU - 3 * PAGE_SIZE)
		start = 0;
	while (cut < PAGE_SIZE && mem->total / cut + mem->total / PAGE_SIZE + 2 > LNET_MAX_IOV)
		cut = min(cut * 2, (u32)PAGE_SIZE);
	shim_count(SHIM_memories);
	if (!mem->total)
		return mem;
	if (mem->kind != SHIM_PAGES) {
		u32 size = mem->total + start;

		mem->base = mem->kind == SHIM_SLAB ? kmalloc(size, gfp) : __vmalloc(size, gfp);
		if (!mem->base)
			goto fail;
		mem->nr = cut_up(mem, mem->base + start, cut);
		if (mem->nr > LNET_MAX_IOV) {
			cut = PAGE_SIZE;
			mem->nr = cut_up(mem, mem->base + start, cut);
		}
	} else {
		mem->nr = DIV_ROUND_UP(mem->total, cut);
	}
	mem->kiov = kcalloc(mem->nr, sizeof(*mem->kiov), gfp);
	if (!mem->kiov)
		goto fail;
	if (mem->kind != SHIM_PAGES) {
		cut_up(mem, mem->base + start, cut);
	} else {
		mem->nr = 0;
		if (!get_pages(mem, cut, gfp))
			goto fail;
	}
	set_all(mem, GUARD);
	return mem;
fail:
	shim_mem_free(mem);
	return NULL;
}

/* Frees the memory as its users do: what was in it is overwritten before. */
void shim_mem_free(struct shim_mem *mem)
{
	unsigned int i;

	if (!mem)
		return;
	shim_uncount(SHIM_memories);
	if (mem->kiov)
		set_all(mem, POISON);
	for (i = 0; mem->kiov && mem->kind == SHIM_PAGES && i < mem->nr; i++)
		__free_page(mem->kiov[i].bv_page);
	if (mem->kiov)
		memset(mem->kiov, 0x6b, mem->nr * sizeof(*mem->kiov));
	kfree(mem->kiov);
	if (mem->kind == SHIM_VMALLOC)
		vfree(mem->base);
	else
		kfree(mem->base);
	kfree(mem);
}

struct walk {
	u8 *bytes;
	u32 at;
	bool is_same;
};

static void fill_piece(void *context, void *at, u32 len)
{
	struct walk *walk = context;

	while (len) {
		u32 some = min(len, PATTERN - walk->at);

		memcpy(at, pattern + walk->at, some);
		walk->at = (walk->at + some) % PATTERN;
		at += some;
		len -= some;
	}
}

static void compare_piece(void *context, void *at, u32 len)
{
	struct walk *walk = context;

	while (len) {
		u32 some = min(len, PATTERN - walk->at);

		walk->is_same &= !memcmp(at, pattern + walk->at, some);
		walk->at = (walk->at + some) % PATTERN;
		at += some;
		len -= some;
	}
}

static void guard_piece(void *context, void *at, u32 len)
{
	struct walk *walk = context;

	walk->is_same &= !memchr_inv(at, GUARD, len);
}

static void write_piece(void *context, void *at, u32 len)
{
	struct walk *walk = context;

	memcpy(at, walk->bytes + walk->at, len);
	walk->at += len;
}

static void read_piece(void *context, void *at, u32 len)
{
	struct walk *walk = context;

	memcpy(walk->bytes + walk->at, at, len);
	walk->at += len;
}

/* Puts the payload there that depends on `seed`. */
void shim_mem_fill(struct shim_mem *mem, u64 seed)
{
	struct walk walk = { .at = pattern_start(seed) };

	each_piece(mem, mem->skip, mem->len, fill_piece, &walk);
}

void shim_mem_write(struct shim_mem *mem, const void *bytes, u32 len)
{
	struct walk walk = { .bytes = (u8 *)bytes };

	each_piece(mem, mem->skip, min(len, mem->len), write_piece, &walk);
}

void shim_mem_read(struct shim_mem *mem, void *bytes, u32 len)
{
	struct walk walk = { .bytes = bytes };

	each_piece(mem, mem->skip, min(len, mem->len), read_piece, &walk);
}

/* Whether the first `len` bytes of this payload are there, and nothing was written around them. */
bool shim_mem_is_intact(struct shim_mem *mem, u64 seed, u32 len)
{
	struct walk walk = { .at = pattern_start(seed), .is_same = true };

	each_piece(mem, mem->skip, len, compare_piece, &walk);
	each_piece(mem, 0, mem->skip, guard_piece, &walk);
	each_piece(mem, mem->skip + len, mem->total - mem->skip - len, guard_piece, &walk);
	return walk.is_same;
}
