/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for one adapter and no operators: the tests call the kernels themselves. */
#include "lmcu.h"

enum { PARAMS = 8192 };

uint16_t blank_factors[PARAMS];
float blank_gradients[PARAMS];
lmcu_adapter_t blank_adapters[1];

const lmcu_model_t lmcu_model = {.factors = blank_factors, .gradients = blank_gradients, .param_count = PARAMS,
                                .adapter_count = 1,
                                .adapters = blank_adapters};
