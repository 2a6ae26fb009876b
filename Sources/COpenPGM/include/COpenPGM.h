#ifndef CASTNET_COPENPGM_H
#define CASTNET_COPENPGM_H

/* The C shim over libpgm: every C quirk ends here, no pgm type crosses into Swift. */

#if defined(CASTNET_MULTICAST) && !__has_include(<pgm/pgm.h>)
#error "Castnet's Multicast trait needs OpenPGM: run `apt-get install libpgm-dev pkg-config`, or build with --disable-default-traits."
#endif

#endif
