/**
 * PROTOCOL.md's tables, as the page writes them and as the code has them.
 */
import ts from 'typescript'
import { DEFAULT_LIMITS, WIRE_LIMITS } from '#shared/limits.js'
import { visit } from './sources.ts'

/** Which frames each end sends, by the unions of frames.ts. */
export function frameDirections(frames: ts.SourceFile): { client: ReadonlySet<string>; relay: ReadonlySet<string> } {
  const members = (alias: string): ReadonlySet<string> => {
    const names = new Set<string>()
    for (const node of frames.statements) {
      if (!ts.isTypeAliasDeclaration(node) || node.name.text !== alias) continue
      visit(node.type, (part) => {
        if (ts.isTypeReferenceNode(part))
          names.add(
            part.typeName
              .getText()
              .replace(/Frame$/u, '')
              .toLowerCase(),
          )
      })
    }
    return names
  }
  return { client: members('ClientFrame'), relay: members('RelayFrame') }
}

/** Calls and constants of fields.ts and bodies.ts → what PROTOCOL.md calls them. */
const GRAMMAR: Readonly<Record<string, string>> = {
  varUint: 'varUint',
  upTo: 'varUint',
  code: 'varUint',
  seq: 'varUint',
  oneOf: 'u8',
  grant: 'u8',
  id16: 'id16',
  incarnation: 'id16',
  lineage: 'id16',
  hash: 'hash',
  string: 'string',
  message: 'string',
  token: 'string',
  principal: 'string',
  blob: 'bytes',
  update: 'bytes',
}

/** The body of each frame that bodies.ts has as a group, as PROTOCOL.md writes it; undefined for one that is written by hand. */
export function frameBodies(bodies: ts.SourceFile): Readonly<Record<string, string | undefined>> {
  const constants = new Map<string, ts.Expression>()
  visit(bodies, (node) => {
    if (ts.isVariableDeclaration(node) && node.initializer !== undefined) constants.set(node.name.getText(), node.initializer)
  })
  const rows = constants.get('BODIES')
  if (rows === undefined || !ts.isObjectLiteralExpression(rows)) throw new Error('no table of bodies')
  return Object.fromEntries(properties(rows).map(([name, value]) => [name, groupText(constants.get(value.getText()) ?? value)]))
}

function groupText(field: ts.Expression): string | undefined {
  const [fields] = ts.isCallExpression(field) && field.expression.getText() === 'group' ? field.arguments : []
  if (fields === undefined || !ts.isObjectLiteralExpression(fields)) return undefined
  return properties(fields)
    .map(([name, value]) => fieldText(name, value))
    .join(' ')
}

function fieldText(name: string, field: ts.Expression): string {
  const call = ts.isCallExpression(field) ? field : undefined
  const kind = (call?.expression ?? field).getText()
  const [inner] = call?.arguments ?? []
  if (inner !== undefined && kind === 'list') return `${name.slice(0, -1)}Count:varUint {${groupText(inner)}}*`
  if (inner !== undefined && kind === 'optional')
    return `has${name.slice(0, 1).toUpperCase()}${name.slice(1)}:u8 [${name === 'resume' ? groupText(inner) : name}]`
  return `${name}:${GRAMMAR[kind] ?? `?${kind}`}`
}

function properties(literal: ts.ObjectLiteralExpression): readonly (readonly [string, ts.Expression])[] {
  return literal.properties.flatMap((property): [string, ts.Expression][] => {
    if (ts.isShorthandPropertyAssignment(property)) return [[property.name.text, property.name]]
    return ts.isPropertyAssignment(property) ? [[property.name.getText(), property.initializer]] : []
  })
}

/** The limits of the code as PROTOCOL.md writes them. */
export function limitRows(): Readonly<Record<string, string>> {
  const [limits, wire] = [DEFAULT_LIMITS, WIRE_LIMITS]
  return {
    message: size(limits.message),
    'message before welcome': `${size(limits.helloMessage)}, one frame, ${limits.helloMs / 1000} s`,
    'agent, message, principal strings': [wire.agent, wire.text, wire.principal].map(size).join(', '),
    token: size(wire.token),
    'document id': `1 to ${size(wire.documentId)} of UTF-8, no control characters, not \`.\` or \`..\``,
    'edit, in parts': size(limits.edit),
    covers: count(wire.covers),
    'sink name': size(wire.sink),
    '`await` unanswered on a socket': count(wire.awaits),
    'entries in a frame': count(wire.entries),
    'frames in a message': count(wire.frames),
    'structs per 256 KiB of an update': count(limits.structs),
    'Yjs client ids that an update writes under': count(limits.clients),
    'Yjs client ids of a document': count(limits.documentClients),
    'depth of a JSON-like value': count(limits.depth),
    key: size(limits.key),
    document: size(limits.document),
    presence: `${size(limits.presence)} a client, ${size(wire.presence)} a frame`,
    'documents on a socket': count(limits.documents),
    window: size(limits.window),
    'outbound, unsent': `${size(limits.outbound)}, then catch-up from the log`,
    'state fragment': size(limits.fragment),
  }
}

function size(bytes: number): string {
  if (bytes >= 1 << 20) return `${bytes / (1 << 20)} MiB`
  return bytes >= 1024 ? `${bytes / 1024} KiB` : `${bytes} bytes`
}

function count(number: number): string {
  return number.toLocaleString('en-GB')
}

/** Rows of the Markdown table whose head begins with `head`, as trimmed cells. */
export function table(page: string, head: string): readonly (readonly string[])[] {
  const lines = page.split('\n')
  const start = lines.findIndex((line) => line.startsWith(head))
  if (start < 0) throw new Error(`no table "${head}"`)
  const rows = lines.slice(start + 2)
  const end = rows.findIndex((line) => !line.startsWith('|'))
  return rows.slice(0, end < 0 ? undefined : end).map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  )
}
