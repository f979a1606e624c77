# SPDX-License-Identifier: Apache-2.0
"""The real models in LORA_MCU_MODELS: which are expected, and why some are refused."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

ACCEPTED = (
    "armkwt1_cut_int8_aeq", "mlperf_ad01_int8", "mlperf_kws_ref_model", "mlperf_pretrainedResnet_quant",
    "mlperf_str_ww_ref_model", "mlperf_vww_96_int8", "silabs_tflm_magic_wand", "tflm_hello_world_int8",
    "tflm_micro_speech_quantized", "tflm_person_detect", "tinymaix_mbnet128_025_q", "tinymaix_mnist_resnet_q",
)  # fmt: skip
STREAMING = ("mww_okay_nabu_v2",)


def others(folder: Path) -> list[str]:
    """Models in the folder that no list above knows: they must compile exactly or be refused by an Error."""
    found = sorted(p.stem for p in folder.glob("*.tflite"))
    return [name for name in found if name not in ACCEPTED and name not in STREAMING]


def for_oracle(path: Path) -> bytes:
    """The file as LiteRT 2.3 takes it: a bias whose quantized_dimension is out of range (person_detect) gets 0."""
    import flatbuffers

    content = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    wrong = [
        t.quantization
        for t in model.subgraphs[0].tensors
        if t.quantization is not None and t.quantization.quantizedDimension >= max(1, len(t.shape))
    ]
    if not wrong:
        return content
    for quantization in wrong:
        quantization.quantizedDimension = 0
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
