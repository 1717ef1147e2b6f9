/**
 * The shipped command line as a child process: started, waited for, and never left behind.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const cli = fileURLToPath(import.meta.resolve('#server/cli.js'))

/** How a command ended. */
export interface Ended {
  /** Exit code, or null when a signal ended it. */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A command that runs. */
export interface Command {
  readonly child: ChildProcess
  /** What it wrote so far. */
  readonly output: { stdout: string; stderr: string }
  readonly ended: Promise<Ended>
}

/** `rejoin serve` that listens. */
export interface Serving extends Command {
  readonly url: string
}

export interface CommandOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
}

/** Starts `rejoin …`. It inherits no REJOIN_ variable. */
export function startCli(args: readonly string[], { cwd, env }: CommandOptions = {}): Command {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('REJOIN_')))
  const child = spawn(process.execPath, [cli, ...args], { cwd, env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()))
  const ended = new Promise<Ended>((resolve) => child.once('close', (code, signal) => resolve({ code, signal, ...output })))
  return { child, output, ended }
}

/** Runs `rejoin …` to its end. */
export function runCli(args: readonly string[], options?: CommandOptions): Promise<Ended> {
  return startCli(args, options).ended
}

/** Starts `rejoin serve --port 0 …` and waits for the line that says where it listens. Rejects with what it wrote when it ends before. */
export function startServe(args: readonly string[], options?: CommandOptions): Promise<Serving> {
  return startListening('serve', args, options)
}

/** The same with `rejoin forward`. */
export function startForward(args: readonly string[], options?: CommandOptions): Promise<Serving> {
  return startListening('forward', args, options)
}

async function startListening(name: 'serve' | 'forward', args: readonly string[], options?: CommandOptions): Promise<Serving> {
  const command = startCli([name, '--port', '0', ...args], options)
  const line = await new Promise<string>((resolve, reject) => {
    command.child.stdout?.on('data', () => {
      const end = command.output.stdout.indexOf('\n')
      if (end >= 0) resolve(command.output.stdout.slice(0, end))
    })
    void command.ended.then(({ code, stderr }) => reject(new Error(`rejoin ${name} ended with ${code}: ${stderr}`)))
  })
  const { url } = JSON.parse(line) as { url: string }
  return { ...command, url }
}
