# SPDX-License-Identifier: Apache-2.0
"""The host's end of the wire protocol (docs/protocol.md): frames, transport, session and one function a message."""
