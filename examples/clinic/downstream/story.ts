/**
 * What the example prints: a story with times. In a terminal it has colours and a last line that lives; elsewhere it is plain lines.
 */
import { styleText } from 'node:util'

type Look = 'plain' | 'bad' | 'good' | 'faint' | 'strong'

const LOOKS = { plain: 'reset', bad: 'red', good: 'green', faint: 'dim', strong: 'bold' } as const
const MARKS: Readonly<Record<Look, string>> = { plain: ' ', bad: '✗', good: '✓', faint: ' ', strong: ' ' }
const REDRAW_MS = 100
const CLEAR_LINE = '\r\u001B[K'

export interface Story {
  /** Seconds since it began. */
  seconds(): number
  title(text: string): void
  say(text: string, look?: Look): void
  /** Keeps `line` below what was said, in a terminal, until `end`. */
  watch(line: () => string): void
  end(): void
}

export function tellStory(out: NodeJS.WriteStream = process.stdout): Story {
  const began = performance.now()
  const colours = out.isTTY && !process.env['NO_COLOR']
  let live: (() => string) | undefined
  let timer: NodeJS.Timeout | undefined

  const dress = (look: Look, text: string): string => (colours && look !== 'plain' ? styleText(LOOKS[look], text) : text)
  const seconds = (): number => (performance.now() - began) / 1000
  const time = (): string => `${seconds().toFixed(1).padStart(6)} s`
  const draw = (): void => {
    // A line that wraps could not be cleared.
    if (live !== undefined) out.write(`${CLEAR_LINE}${dress('faint', `${time()}   ${live()}`.slice(0, out.columns - 1))}`)
  }
  const write = (text: string): void => {
    out.write(`${live === undefined ? '' : CLEAR_LINE}${text}\n`)
    draw()
  }
  return {
    seconds,
    title: (text) => write(`\n${dress('strong', `  ${text}`)}\n`),
    say: (text, look = 'plain') => {
      for (const [i, line] of text.split('\n').entries()) {
        const before = i === 0 ? `${dress('faint', time())} ${dress(look, MARKS[look])}` : ' '.repeat(10)
        write(`${before} ${dress(look, line)}`.trimEnd())
      }
    },
    watch: (line) => {
      if (!out.isTTY) return
      live = line
      timer = setInterval(draw, REDRAW_MS)
    },
    end: () => {
      clearInterval(timer)
      if (live !== undefined) out.write(CLEAR_LINE)
      live = undefined
    },
  }
}
