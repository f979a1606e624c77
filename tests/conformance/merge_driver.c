/* SPDX-License-Identifier: Apache-2.0 */
/* The output's rounding of a merged layer alone: doubles from stdin, (multiplier u64, shift u8, fits u8) or, with "conv",
 * (fraction i32, right i8) to stdout. Built with LMCU_SRAM_WEIGHTS 1 before merge.c. */
#include <stdio.h>
#include <string.h>

#include "merge.c"

lmcu_context_t lmcu_context;
uint8_t lmcu_weights[16];
const uint64_t lmcu_base_weights[2];
const uint32_t lmcu_weight_bytes = 16;
const lmcu_resident_t lmcu_residents[1];
const lmcu_model_t lmcu_model;

bool lmcu_busy(void)
{
    return false;
}

void lmcu_layer_done(void)
{
}

int main(int argc, char **argv)
{
    const bool conv = argc > 1 && strcmp(argv[1], "conv") == 0;
    const lmcu_resident_t layer = {.multiplier = 0, .shift = 8};
    double ratio;
    while (fread(&ratio, sizeof ratio, 1, stdin) == 1) {
        uint8_t fits = 1;
        if (conv) {
            write_requant(&layer, 0, ratio);
        } else {
            fits = write_rounding(&layer, 0, ratio, INT32_MAX);
        }
        fwrite(lmcu_weights, conv ? 4 : 8, 1, stdout);
        fwrite(lmcu_weights + 8, 1, 1, stdout);
        fwrite(&fits, 1, 1, stdout);
    }
    return 0;
}
