/**
 * What a frame's field can be, written and read (step 3 of the path): bodies.ts puts these together, PROTOCOL.md §1 has their grammar.
 */
import type { ByteReader, ByteWriter } from './bytes.ts'
import { ERRORS, errorCode } from './errors.ts'
import type { ErrorCode } from './errors.ts'
import { WIRE_LIMITS } from './limits.ts'

/** One field's way to bytes and back. `name` is for the reason when it does not fit. */
export interface Field<T> {
  /** Throws `SyncError('bad_option')` when the value cannot go on the wire. */
  write(writer: ByteWriter, value: T, name: string): void
  /** After a fault of the reader the value is of no use. */
  read(reader: ByteReader, name: string): T
}

/** A field for each property of T, in the order of the wire. */
export type FieldsOf<T> = { readonly [K in keyof T]-?: Field<T[K]> }

export const varUint: Field<number> = {
  write: (writer, value) => writer.varUint(value),
  read: (reader) => reader.varUint(),
}

/** 0 to `max`; the writer lets pass what only the reader must be safe from. */
export function upTo(max: number): Field<number> {
  return { ...varUint, read: (reader, name) => reader.upTo(max, name) }
}

/** 16 bytes, in memory 32 hexadecimal digits. */
export const id16: Field<string> = {
  write: (writer, value) => writer.hex16(value),
  read: (reader) => reader.hex16(),
}

/** The same, for ids that stand in one frame after another. */
export const recurring16: Field<string> = { ...id16, read: (reader) => reader.recurring16() }

/** Bytes; what is read is a view of the message. */
export function blob(max: number): Field<Uint8Array> {
  return {
    write: (writer, value) => writer.blob(value),
    read: (reader, name) => reader.blob(max, name),
  }
}

/** UTF-8 of at most `max` bytes. */
export function string(max: number): Field<string> {
  return {
    write: (writer, value, name) => writer.text(value, max, name),
    read: (reader, name) => reader.text(max, name),
  }
}

/** A string for people, which is cut where it is too long. */
export const message: Field<string> = {
  ...string(WIRE_LIMITS.text),
  write: (writer, value) => writer.clipped(value, WIRE_LIMITS.text),
}

/** A code of the table of errors, by its number. */
export const code: Field<ErrorCode> = {
  write: (writer, value) => writer.varUint(ERRORS[value].number),
  read: (reader) => errorCode(reader.varUint()),
}

/** One of `values`, by its place in the list. */
export function oneOf<T>(...values: readonly [T, ...T[]]): Field<T> {
  return {
    write: (writer, value) => writer.byte(values.indexOf(value)),
    read: (reader, name) => reader.oneOf(values, name),
  }
}

/** A byte that says whether the field follows, and the field. */
export function optional<T>(field: Field<T>): Field<T | undefined> {
  return {
    write(writer, value, name) {
      writer.byte(value === undefined ? 0 : 1)
      if (value !== undefined) field.write(writer, value, name)
    },
    read: (reader, name) => (reader.flag(name) ? field.read(reader, name) : undefined),
  }
}

/** A count and as many fields. */
export function list<T>(field: Field<T>, max: number): Field<readonly T[]> {
  return {
    write(writer, values, name) {
      writer.varUint(values.length)
      for (const value of values) field.write(writer, value, name)
    },
    read: (reader, name) => readList(reader, field, reader.upTo(max, name), name),
  }
}

/** As many fields as were announced; nothing is made for those that do not come. */
export function readList<T>(reader: ByteReader, field: Field<T>, count: number, name: string): readonly T[] {
  const values: T[] = []
  while (values.length < count && reader.fault === undefined) values.push(field.read(reader, name))
  return values
}

/** Fields one after another. `problem`: what is wrong with all of them together. */
export function group<T extends object>(fields: FieldsOf<T>, problem?: (value: T) => string | undefined): Field<T> {
  const entries = Object.entries(fields) as [keyof T & string, Field<unknown>][]
  return {
    write(writer, value) {
      for (const [name, field] of entries) field.write(writer, value[name], name)
    },
    read(reader) {
      const read: Partial<Record<keyof T, unknown>> = {}
      for (const [name, field] of entries) read[name] = field.read(reader, name)
      const value = read as T
      const wrong = problem?.(value)
      if (wrong !== undefined) reader.fail(wrong)
      return value
    },
  }
}
