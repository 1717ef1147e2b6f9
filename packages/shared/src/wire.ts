/**
 * `@rejoin/shared/wire`: frames and their bytes, for the two ends of the wire; applications do not need them.
 */
export { REVISION, FRAME_TYPES } from './frames.ts'
export type {
  Access,
  AckFrame,
  AuthFrame,
  AuthenticateFrame,
  AuthenticatedFrame,
  AwaitFrame,
  ClientFrame,
  CloseFrame,
  ClosedFrame,
  EntriesFrame,
  Frame,
  GoawayFrame,
  GrantFrame,
  HelloFrame,
  NackFrame,
  OpenFrame,
  OpenMode,
  OpenedFrame,
  PingFrame,
  PongFrame,
  PresenceFrame,
  PushFrame,
  PushKind,
  ReachedFrame,
  RefusedFrame,
  RelayFrame,
  StateFrame,
  WelcomeFrame,
} from './frames.ts'
export { createFrameWriter, decodeFrames, encodeFrames } from './codec.ts'
export type { DecodeOptions, Decoded, FrameWriter } from './codec.ts'
export { ByteReader, ByteWriter } from './bytes.ts'
export { DEFAULT_LIMITS, WIRE_LIMITS } from './limits.ts'
