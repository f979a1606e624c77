# SPDX-License-Identifier: Apache-2.0
# What the ESP32-C3's ROM does for flash_driver.c, for Renode, whose flash is memory that can be written. The words stand in
# esp32_c3_devkitm_1.resc; tests/unit/test_renode.py assembles this file, compares them, and runs them.
#   riscv64-unknown-elf-gcc -march=rv32imc -misa-spec=2.2 -mabi=ilp32 -nostdlib -Ttext=0x40000000
        .equ WINDOW, 0x3C000000
        .option norelax
        .text
        .macro ready            # a function that has nothing to do here
        c.li    a0, 0
        c.jr    ra
        .endm

        .org 0x128              # esp_rom_spiflash_erase_sector(sector)
        .option push
        .option norvc
        j       erase
        j       write           # 0x12C: esp_rom_spiflash_write(at, words, bytes)
        .option pop
        .org 0x134              # esp_rom_spiflash_config_param
        ready
        .org 0x140              # esp_rom_spiflash_unlock
        ready
        .org 0x4D4              # Cache_Invalidate_Addr
        ready
        .org 0x524              # Cache_Suspend_ICache
        ready
        ready                   # 0x528: Cache_Resume_ICache
erase:
        slli    a0, a0, 12
        lui     a1, %hi(WINDOW)
        add     a0, a0, a1
        lui     a1, 1
        add     a1, a1, a0
        li      a2, -1
1:      sw      a2, 0(a0)
        addi    a0, a0, 4
        bne     a0, a1, 1b
        ready
write:
        lui     a3, %hi(WINDOW)
        add     a0, a0, a3
        add     a2, a2, a0
1:      lw      a3, 0(a1)
        lw      a4, 0(a0)
        and     a3, a3, a4      # bits only go from 1 to 0
        sw      a3, 0(a0)
        addi    a1, a1, 4
        addi    a0, a0, 4
        bne     a0, a2, 1b
        ready
        .balign 4
