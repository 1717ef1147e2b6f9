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
    'entries in a frame': count(wire.entries),
    'frames in a message': count(wire.frames),
    'structs per 256 KiB of an update': count(limits.structs),
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
