#include "COpenPGM.h"
