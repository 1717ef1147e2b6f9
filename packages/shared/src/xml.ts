/**
 * Rich text as one canonical XML string: text escaped, attributes and marks sorted. Never recursive: nesting is an attacker's choice.
 */
import { Text as YText, XmlElement, XmlFragment, XmlHook } from 'yjs'
import { canonicalJson, isPlainObject } from './canonical.ts'

/** Shared types that hold rich text. */
export type RichText = XmlFragment | XmlElement | YText

/** Whether `value` is a shared type that holds rich text. Y.XmlText is a Y.Text, Y.XmlElement a Y.XmlFragment. */
export function isRichText(value: unknown): value is RichText {
  return value instanceof XmlFragment || value instanceof YText
}

/**
 * The XML of rich text. Marks of a text become elements around it (`<bold>`, `<link href="…">`), embedded values `<embed>` with their JSON; a name that is no XML name becomes `<element name="…">`.
 */
export function richTextToXml(root: RichText): string {
  const parts: string[] = []
  const rest: unknown[] = [root]
  while (rest.length > 0) {
    const next = rest.pop()
    if (typeof next === 'string') parts.push(next)
    else if (next instanceof YText) pushReversed(rest, textParts(next))
    else if (next instanceof XmlElement) {
      const { open, close } = tags(next.nodeName, next.getAttributes())
      parts.push(open)
      rest.push(close)
      pushReversed(rest, next.toArray())
    } else if (next instanceof XmlFragment) pushReversed(rest, next.toArray())
    else if (next instanceof XmlHook) parts.push(embed({ hook: next.hookName }))
  }
  return parts.join('')
}

/** One by one: a spread of a hundred thousand children would overflow the stack. */
function pushReversed(rest: unknown[], items: readonly unknown[]): void {
  for (let i = items.length - 1; i >= 0; i--) rest.push(items[i])
}

/** Strings to write as they are, and elements that stand inside the text. */
function textParts(text: YText): unknown[] {
  const parts: unknown[] = []
  const runs: readonly { readonly insert?: unknown; readonly attributes?: Readonly<Record<string, unknown>> }[] = text.toDelta()
  for (const run of runs) {
    const marks = Object.entries(run.attributes ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1))
    const around = marks.map(([name, value]) => tags(name, isPlainObject(value) ? value : value === true ? {} : { value }))
    for (const mark of around) parts.push(mark.open)
    if (typeof run.insert === 'string') parts.push(escape(run.insert))
    else if (isRichText(run.insert)) parts.push(run.insert)
    else parts.push(embed(run.insert))
    for (const mark of around.toReversed()) parts.push(mark.close)
  }
  return parts
}

const XML_NAME = /^[A-Za-z_][A-Za-z0-9_.-]*$/u

function tags(name: string, attributes: Readonly<Record<string, unknown>>): { readonly open: string; readonly close: string } {
  const proper = XML_NAME.test(name)
  const shown = Object.entries(attributes)
    .filter(([key, value]) => XML_NAME.test(key) && value !== null && value !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => ` ${key}="${escape(typeof value === 'string' ? value : canonicalJson(value))}"`)
    .join('')
  return proper
    ? { open: `<${name}${shown}>`, close: `</${name}>` }
    : { open: `<element name="${escape(name)}"${shown}>`, close: '</element>' }
}

/** Shared types other than rich text are not followed and show as null: what they hold belongs in fields. */
function embed(value: unknown): string {
  return `<embed>${escape(canonicalJson(value))}</embed>`
}

function escape(text: string): string {
  return text.toWellFormed().replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
