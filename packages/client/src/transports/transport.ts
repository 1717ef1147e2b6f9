/**
 * The port of the wire (step 3 of the path): a socket that carries messages of whole frames in order, or closes. One adapter a file beside this.
 */

/** What the transport tells its connection. After `closed` nothing more is told. */
export interface TransportListener {
  opened(): void
  /** One message: one or more frames. The bytes belong to the listener. */
  message(bytes: Uint8Array): void
  /** Once, whatever the reason: a close code (1006 when the network failed) and what is known of the cause. */
  closed(code: number, reason: string): void
}

/** One socket under way. */
export interface TransportSocket {
  /** Sends one message; ignored after the close. */
  send(bytes: Uint8Array): void
  /** Ends the socket; `closed` is still told. */
  close(code: number, reason: string): void
}

/** Dials. Never throws: what fails is told by `closed`. */
export type Transport = (url: string, listener: TransportListener) => TransportSocket
