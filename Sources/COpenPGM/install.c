#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "seam.h"

#ifdef CASTNET_MULTICAST

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <poll.h>
#include <sys/epoll.h>

#include <pgm/pgm.h>

#include "replacements.h"

/* libpgm's own relocation table holds one slot for each function of another library that it calls. Writing
 * two of them turns libpgm's calls, and nobody else's. */

typedef struct slot {
    const char *name;
    void *replacement;
    void **address;
} slot;

static struct {
    pthread_mutex_t mutex;
    slot slots[2];
    /// The part of the library that the loader made read-only after relocation.
    uintptr_t relro_start, relro_end;
} installed = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .slots = {
        {"sendto", (void *)castnet_seam_sendto, NULL},
        {"recvmsg", (void *)castnet_seam_recvmsg, NULL},
    },
};

/* The loader may or may not have turned the table's offsets into addresses. */
static uintptr_t absolute(uintptr_t base, uintptr_t value) { return value < base ? base + value : value; }

static void search(uintptr_t base, const ElfW(Rela) *relocations, size_t bytes, const ElfW(Sym) *symbols,
                   const char *strings) {
    for (size_t i = 0; i < bytes / sizeof *relocations; i++) {
#if __SIZEOF_POINTER__ == 8
        size_t symbol = ELF64_R_SYM(relocations[i].r_info);
#else
        size_t symbol = ELF32_R_SYM(relocations[i].r_info);
#endif
        if (symbol == 0) continue;
        const char *name = strings + symbols[symbol].st_name;
        for (size_t k = 0; k < 2; k++) {
            if (strcmp(name, installed.slots[k].name) == 0)
                installed.slots[k].address = (void **)(base + relocations[i].r_offset);
        }
    }
}

static void read_dynamic(uintptr_t base, const ElfW(Dyn) *dynamic) {
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    const ElfW(Rela) *tables[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    bool has_rela_plt = true;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        uintptr_t value = dynamic->d_un.d_val;
        switch (dynamic->d_tag) {
        case DT_SYMTAB: symbols = (const void *)absolute(base, value); break;
        case DT_STRTAB: strings = (const void *)absolute(base, value); break;
        case DT_JMPREL: tables[0] = (const void *)absolute(base, value); break;
        case DT_PLTRELSZ: bytes[0] = value; break;
        case DT_RELA: tables[1] = (const void *)absolute(base, value); break;
        case DT_RELASZ: bytes[1] = value; break;
        case DT_PLTREL: has_rela_plt = value == DT_RELA; break;
        default: break;
        }
    }
    if (!symbols || !strings) return;
    if (tables[0] && has_rela_plt) search(base, tables[0], bytes[0], symbols, strings);
    if (tables[1]) search(base, tables[1], bytes[1], symbols, strings);
}

/* The library is the object that holds the function. */
static int visit(struct dl_phdr_info *object, size_t size, void *function) {
    (void)size;
    const ElfW(Dyn) *dynamic = NULL;
    uintptr_t relro_start = 0, relro_end = 0;
    bool found = false;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD)
            found |= (uintptr_t)function >= start && (uintptr_t)function < start + header->p_memsz;
        if (header->p_type == PT_DYNAMIC) dynamic = (const void *)start;
        if (header->p_type == PT_GNU_RELRO) {
            relro_start = start;
            relro_end = start + header->p_memsz;
        }
    }
    if (!found || !dynamic) return 0;
    installed.relro_start = relro_start;
    installed.relro_end = relro_end;
    read_dynamic(object->dlpi_addr, dynamic);
    return 1;
}

static bool write_slot(slot *slot, castnet_pgm_error *error) {
    if (__atomic_load_n(slot->address, __ATOMIC_ACQUIRE) == slot->replacement) return true;
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t address = (uintptr_t)slot->address;
    void *page = (void *)(address & ~(page_size - 1));
    bool is_sealed = address >= installed.relro_start
        && address < (installed.relro_end & ~(page_size - 1));
    if (is_sealed && mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0) {
        error->code = errno;
        snprintf(error->text, sizeof error->text, "making libpgm's table writable: %s", strerror(errno));
        return false;
    }
    __atomic_store_n(slot->address, slot->replacement, __ATOMIC_RELEASE);
    if (is_sealed) (void)mprotect(page, page_size, PROT_READ);
    return true;
}

/* The slots outlive everybody who might unload the library that holds the replacements. */
static void stay_loaded(void) {
    Dl_info self;
    if (dladdr((void *)castnet_seam_sendto, &self) != 0 && self.dli_fname)
        (void)dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

static bool install(castnet_pgm_error *error) {
    const char *wish = getenv("CASTNET_SEAM");
    if (wish && strcmp(wish, "off") == 0) {
        error->code = 0;
        snprintf(error->text, sizeof error->text, "CASTNET_SEAM=off");
        return false;
    }
    if (!installed.slots[0].address || !installed.slots[1].address) {
        void *function = dlsym(RTLD_DEFAULT, "pgm_recvmsgv");
        dl_iterate_phdr(visit, function ? function : (void *)pgm_recvmsgv);
        stay_loaded();
    }
    for (int k = 0; k < 2; k++) {
        if (!installed.slots[k].address) {
            error->code = 0;
            snprintf(error->text, sizeof error->text, "libpgm's table has no slot for %s",
                installed.slots[k].name);
            return false;
        }
        if (!write_slot(&installed.slots[k], error)) return false;
    }
    return true;
}

bool castnet_seam_install(castnet_pgm_error *error) {
    pthread_mutex_lock(&installed.mutex);
    bool stands = install(error);
    pthread_mutex_unlock(&installed.mutex);
    return stands;
}

#endif
