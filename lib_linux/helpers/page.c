// SPDX-License-Identifier: GPL-2.0
/* Memory. */
#include <linux/crc32.h>
#include <linux/highmem.h>
#include <linux/net.h>
#include <linux/page_frag_cache.h>
#include <linux/percpu.h>
#include <linux/sched/mm.h>
#include <linux/xxhash.h>

#include "helpers.h"

unsigned int socklnd_helper_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void socklnd_helper_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

/*
 * Caches of page fragments. Those of netdev_alloc_frag() are for the receive path, which may use the
 * reserves of memory.
 */
struct socklnd_frags {
	/* Protects the cache: several threads may use the one of a processor. */
	spinlock_t lock;
	struct page_frag_cache cache;
};

static DEFINE_PER_CPU(struct socklnd_frags, socklnd_frags) = {
	.lock = __SPIN_LOCK_UNLOCKED(socklnd_frags.lock),
};

/* @size is at most a page. May sleep. */
void *socklnd_helper_page_frag_alloc(unsigned int size)
{
	struct socklnd_frags *frags = raw_cpu_ptr(&socklnd_frags);
	struct page *page;
	void *start;

	spin_lock(&frags->lock);
	start = page_frag_alloc(&frags->cache, size, GFP_NOWAIT | __GFP_NOWARN);
	spin_unlock(&frags->lock);
	if (start)
		return start;
	/* Without memory for the cache: a page for this fragment alone, which page_frag_free() can free, too. */
	page = alloc_page(GFP_KERNEL);
	return page ? page_address(page) : NULL;
}

/* Frees the memory of the caches. An allocation fills one again. */
void socklnd_helper_page_frag_drain(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		struct socklnd_frags *frags = per_cpu_ptr(&socklnd_frags, cpu);

		spin_lock(&frags->lock);
		page_frag_cache_drain(&frags->cache);
		spin_unlock(&frags->lock);
	}
}

struct page *socklnd_helper_virt_to_page(const void *address)
{
	return virt_to_page(address);
}

void socklnd_helper_memcpy_from_page(void *to, struct page *page, size_t offset, size_t len)
{
	memcpy_from_page(to, page, offset, len);
}

void socklnd_helper_memcpy_to_page(struct page *page, size_t offset, const void *from, size_t len)
{
	memcpy_to_page(page, offset, from, len);
}

void socklnd_helper_xxh64_update_page(struct xxh64_state *state, struct page *page, size_t offset,
				      size_t len)
{
	char *address = kmap_local_page(page);

	xxh64_update(state, address + offset, len);
	kunmap_local(address);
}

u32 socklnd_helper_crc32_page(u32 crc, struct page *page, size_t offset, size_t len)
{
	char *address = kmap_local_page(page);

	crc = crc32_le(crc, address + offset, len);
	kunmap_local(address);
	return crc;
}

/* The two may overlap. */
void socklnd_helper_memmove_page(struct page *to, size_t to_offset, struct page *from,
				 size_t from_offset, size_t len)
{
	char *source = kmap_local_page(from);
	char *dest = kmap_local_page(to);

	memmove(dest + to_offset, source + from_offset, len);
	kunmap_local(dest);
	kunmap_local(source);
}

bool socklnd_helper_sendpage_ok(struct page *page)
{
	return sendpage_ok(page);
}
