/* SPDX-License-Identifier: Apache-2.0 */
/* The one table of message types and status codes. C expands it; the host tool reads the same lines
 * (lora_mcu/link/codes.py), so a number is written once. Numbers never change meaning within a protocol version. */
#ifndef LMCU_CODES_H
#define LMCU_CODES_H

/* X(name, number, meaning) */
#define LMCU_STATUS_TABLE(X) \
    X(OK, 0, "done") \
    X(NAK, 1, "sequence not expected; nothing was run") \
    X(NO_SESSION, 2, "say HELLO first: the device was reset or never greeted") \
    X(UNSUPPORTED, 3, "this firmware does not implement the message") \
    X(BAD_LENGTH, 4, "the payload's length does not fit the message") \
    X(BAD_ARGUMENT, 5, "an argument is outside its range") \
    X(BAD_LABEL, 6, "the label is not below the number of outputs, or a target is not finite") \
    X(NO_SAMPLE, 7, "no complete sample is staged: send SAMPLE_DATA first") \
    X(STORE_FULL, 8, "the sample store is full") \
    X(STORE_EMPTY, 9, "no samples are stored") \
    X(BUSY, 10, "a run is in progress: wait for it or stop it") \
    X(NOT_FINITE, 11, "a value is not finite (NaN or infinity)") \
    X(WRONG_MODEL, 12, "the adapter belongs to another model") \
    X(WRONG_LAYOUT, 13, "the adapter has another rank, alpha or set of layers") \
    X(BAD_CRC, 14, "the adapter's checksum does not match its bytes") \
    X(FLOAT_ENV, 15, "the floating-point environment is wrong; this device does not train") \
    X(VERSION, 16, "the protocol versions of host and firmware differ") \
    X(NO_ADAPTERS, 17, "the model was compiled without adapted layers") \
    X(NO_TRANSFER, 18, "no adapter transfer is open: send ADAPTER_BEGIN first") \
    X(STORAGE, 19, "the flash store failed") \
    X(NOT_FOUND, 20, "no such slot") \
    X(INTERNAL, 21, "an invariant of the firmware was broken")

enum lmcu_status {
#define LMCU_X(name, number, text) LMCU_##name = number,
    LMCU_STATUS_TABLE(LMCU_X)
#undef LMCU_X
};

#endif
