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
    X(BUSY, 10, "a run or an adapter transfer is in progress: wait for it, stop it or finish it") \
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
    X(INTERNAL, 21, "an invariant of the firmware was broken") \
    X(NO_OUTPUT, 22, "no output is there to be read: INFER first") \
    X(NO_SPACE, 23, "the adapter store is full: delete a slot") \
    X(NO_MOMENTUM, 24, "the model was compiled with --no-momentum: use momentum 0, or compile it again without") \
    X(BATCH_LIMIT, 25, "the model was compiled with --max-batch 1: use batch size 1, or compile it again without") \
    X(WORSE, 26, "the trained adapter is worse on the held-out samples; the one before is in use again") \
    X(SCALE_RANGE, 27, "the merged weights are too large for the scale of the layer's output; the adapter stays unmerged") \
    X(AUTH, 28, "no right tag: the device asks for its key (--key)") \
    X(MERGED, 29, "the adapter is merged into the weights: UNMERGE first")

enum lmcu_status {
#define LMCU_X(name, number, text) LMCU_##name = number,
    LMCU_STATUS_TABLE(LMCU_X)
#undef LMCU_X
};

/* X(name, number, meaning). A response carries its request's number + 128. */
#define LMCU_MESSAGE_TABLE(X) \
    X(HELLO, 1, "opens a session and identifies the device") \
    X(INFO, 2, "reads a piece of the model's description (JSON)") \
    X(STATISTICS, 3, "progress of a run, sums, settings, counters") \
    X(REBOOT, 4, "resets the part") \
    X(BAUD, 5, "changes the line's speed") \
    X(AUTH, 6, "proves that the host may change the device") \
    X(CONFIGURE, 16, "sets the settings of training") \
    X(SAMPLE_DATA, 17, "stages a piece of a sample") \
    X(TARGET_DATA, 18, "stages a piece of a regression target") \
    X(PASS_BEGIN, 19, "opens a streamed training pass") \
    X(TRAIN, 20, "trains on one sample") \
    X(PASS_END, 21, "ends the pass and flushes a partial batch") \
    X(EVALUATE_BEGIN, 22, "clears the sums of evaluation") \
    X(EVALUATE, 23, "adds one sample to the sums of evaluation") \
    X(EVALUATE_END, 24, "reads the sums of evaluation") \
    X(INFER, 25, "runs the model on one sample") \
    X(OUTPUT_READ, 26, "reads a piece of the last inference's output") \
    X(STORE, 27, "appends one sample to the store") \
    X(STORE_CLEAR, 28, "empties the store") \
    X(RUN_EPOCHS, 29, "starts epochs over the stored samples") \
    X(RUN_STOP, 30, "ends a run early; its open batch is dropped") \
    X(STATE_RESET, 31, "gives a streaming model's state its initial value") \
    X(ADVANCE, 32, "runs a streaming model on one frame for its state") \
    X(STORE_POLICY, 33, "sets or reads what a full store does") \
    X(STORE_SAVE, 34, "keeps the stored samples in flash, for after a reset") \
    X(ADAPTER_READ, 48, "reads a piece of the factors") \
    X(ADAPTER_BEGIN, 49, "opens the transfer of an adapter to the device") \
    X(ADAPTER_DATA, 50, "receives a piece of the factors") \
    X(ADAPTER_COMMIT, 51, "replaces the factors by the received ones") \
    X(ADAPTER_RESET, 52, "restores the initial A and B = 0") \
    X(SLOT_SAVE, 53, "saves the factors into a slot of the flash store") \
    X(SLOT_LOAD, 54, "loads the factors from a slot") \
    X(SLOT_LIST, 55, "lists the slots") \
    X(SLOT_DELETE, 56, "deletes a slot") \
    X(SLOT_DEFAULT, 57, "names the slot that is loaded at boot") \
    X(MERGE, 58, "adds the adapter into the weights") \
    X(UNMERGE, 59, "takes the adapter out of the weights")

/* X(name, number, meaning): causes of a reset, in STATISTICS */
#define LMCU_RESET_TABLE(X) \
    X(UNKNOWN, 0, "the part does not tell") \
    X(POWER, 1, "power-on or brown-out") \
    X(PIN, 2, "the reset pin") \
    X(REQUEST, 3, "the firmware was asked to (REBOOT)") \
    X(WATCHDOG, 4, "the watchdog: the firmware hung") \
    X(FAULT, 5, "a fault of the core: the firmware is broken")

enum lmcu_reset {
#define LMCU_X(name, number, text) LMCU_RESET_##name = number,
    LMCU_RESET_TABLE(LMCU_X)
#undef LMCU_X
};

enum lmcu_message {
#define LMCU_X(name, number, text) LMCU_MSG_##name = number,
    LMCU_MESSAGE_TABLE(LMCU_X)
#undef LMCU_X
};

#endif
