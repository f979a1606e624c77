# SPDX-License-Identifier: Apache-2.0
*** Comments ***
NOT RUN YET. One suite for every board that has a .resc here. The scenarios themselves run in QEMU (tests/emulator/test_scenarios.py). Run with Renode's own runner, in a Python
environment that has lora_mcu:
    renode-test --variable BOARD:nucleo_f446re --variable PROJECT:build/mine --variable DATA:data.npz renode/scenarios.robot

*** Settings ***
Suite Setup       Setup
Suite Teardown    Teardown
Test Setup        Reset Emulation
Test Teardown     Test Teardown
Resource          ${RENODEKEYWORDS}
Library           OperatingSystem
Library           ${CURDIR}/scenarios.py    ${PROJECT}    ${DATA}

*** Variables ***
${BOARD}          netduinoplus2
${PROJECT}        ${CURDIR}/../build/demo
${DATA}           ${PROJECT}/data.npz
${PORT}           3456
${URL}            socket://127.0.0.1:${PORT}

*** Keywords ***
Boot
    ${elf}=    Normalize Path    ${PROJECT}/.pio/build/${BOARD}/firmware.elf
    ${bin}=    Normalize Path    ${PROJECT}/.pio/build/${BOARD}/firmware.bin
    Execute Command    $elf=@${elf}
    Execute Command    $bin=@${bin}
    Execute Command    $port=${PORT}
    Execute Command    include @${CURDIR}/${BOARD}.resc
    Start Emulation

*** Test Cases ***
Boots And Answers Hello
    Boot
    Boots And Answers Hello    ${URL}

Trains One Step With The Expected Loss
    Boot
    Trains One Step    ${URL}

Trains Twenty Steps To The Expected Adapter
    Boot
    Trains Twenty Steps    ${URL}

Finds A Saved Adapter After A Reset
    Boot
    Saves An Adapter    ${URL}
    Execute Command    machine Reset
    Finds The Adapter    ${URL}

Names A Garbled Frame
    Boot
    Names A Garbled Frame    ${URL}
