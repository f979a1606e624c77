# SPDX-License-Identifier: Apache-2.0
*** Comments ***
NOT RUN YET. Run with Renode's own runner, in a Python environment that has lora_mcu:
    renode-test --variable PROJECT:build/mine --variable DATA:data.npz renode/netduinoplus2.robot

*** Settings ***
Suite Setup       Setup
Suite Teardown    Teardown
Test Setup        Reset Emulation
Test Teardown     Test Teardown
Resource          ${RENODEKEYWORDS}
Library           OperatingSystem
Library           Process

*** Variables ***
${PROJECT}        ${CURDIR}/../build/demo
${DATA}           ${PROJECT}/data.npz
${PORT}           3456

*** Keywords ***
Boot
    ${elf}=    Normalize Path    ${PROJECT}/.pio/build/netduinoplus2/firmware.elf
    Execute Command    $elf=@${elf}
    Execute Command    $port=${PORT}
    Execute Command    include @${CURDIR}/netduinoplus2.resc
    Start Emulation

Host Tool
    [Arguments]    @{arguments}
    ${result}=    Run Process    lora-mcu    @{arguments}    --port    socket://127.0.0.1:${PORT}    timeout=120s
    Log    ${result.stdout}${result.stderr}
    Should Be Equal As Integers    ${result.rc}    0    ${result.stderr}
    RETURN    ${result.stdout}

*** Test Cases ***
Boots And Answers Hello
    Boot
    ${registers}=    Execute Command    cpu PC
    Should Contain    ${registers}    0x8
    Host Tool    eval    ${PROJECT}    ${DATA}

Trains
    Boot
    ${output}=    Host Tool    train    ${PROJECT}    ${DATA}    --epochs    1
    Should Contain    ${output}    loss
