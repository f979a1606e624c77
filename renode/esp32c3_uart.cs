// SPDX-License-Identifier: Apache-2.0
// NOT RUN YET. UART0 of an ESP32-C3 for Renode 1.15.3, as far as lora_mcu's firmware needs it: polled, what is sent is gone at once.
using System;
using System.Collections.Generic;
using Antmicro.Renode.Core;
using Antmicro.Renode.Peripherals.Bus;

namespace Antmicro.Renode.Peripherals.UART
{
    public class LoraMcuEsp32C3Uart : UARTBase, IDoubleWordPeripheral, IKnownSize
    {
        public LoraMcuEsp32C3Uart(IMachine machine) : base(machine)
        {
            registers = new Dictionary<long, uint>();
        }

        public override void Reset()
        {
            base.Reset();
            registers.Clear();
        }

        public uint ReadDoubleWord(long offset)
        {
            byte character;
            uint value;
            switch(offset)
            {
            case Fifo:
                return TryGetCharacter(out character) ? character : 0u;
            case Status:
                return (uint)Math.Min(Count, FifoBytes);
            default:
                return registers.TryGetValue(offset, out value) ? value : 0u;
            }
        }

        public void WriteDoubleWord(long offset, uint value)
        {
            if(offset == Fifo)
            {
                TransmitCharacter((byte)value);
                return;
            }
            registers[offset] = offset == Id ? value & ~Update : value; // the update is done at once
        }

        public long Size => 0x1000;

        public override Bits StopBits => Bits.One;

        public override Parity ParityBit => Parity.None;

        public override uint BaudRate => 115200;

        protected override void CharWritten()
        {
        }

        protected override void QueueEmptied()
        {
        }

        private readonly Dictionary<long, uint> registers;

        private const long Fifo = 0x00;
        private const long Status = 0x1C;
        private const long Id = 0x80;
        private const uint Update = 1u << 31;
        private const int FifoBytes = 128;
    }
}
