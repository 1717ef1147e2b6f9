/**
 * The quickstart of forwarding, followed as it stands: its files, its commands, and the answers it shows.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { runCli, startServe } from '../support/cli.ts'
import { describePostgres, startPostgres } from '../support/servers/postgres.ts'
import { findProgram } from '../support/requires.ts'
import { readText, root } from '../support/sources.ts'

describePostgres('docs/forwarding-quickstart.md', () => {
  it('does what it says', { timeout: 90_000 }, async () => {
    const page = readText('packages/server/docs/forwarding-quickstart.md')
    const folder = mkdtempSync(join(tmpdir(), 'rejoin-quickstart-'))
    const postgres = await startPostgres()
    try {
      symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
      writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
      for (const name of ['rejoin.config.ts', 'write.js']) writeFileSync(join(folder, name), fileOf(page, name))
      const env = { DATABASE_URL: postgres.url }
      const relay = await startServe([], { cwd: folder, env })
      writeFileSync(join(folder, 'write.js'), fileOf(page, 'write.js').replace('http://127.0.0.1:4400', relay.url))
      try {
        const steps = commandsOf(page)
        expect(steps.length).toBeGreaterThan(5)
        for (const { command, answer } of steps) {
          const [, sinks] = /^npx rejoin (sinks .+)$/u.exec(command) ?? []
          const shown =
            sinks === undefined
              ? await runShell(command.replace('psql', `'${findProgram('psql') ?? 'psql'}'`), folder, env)
              : (await runCli([...sinks.split(' '), '--url', relay.url], { cwd: folder, env })).stdout
          expect(shown.replaceAll(/ +$/gmu, '').trimEnd(), command).toBe(answer)
        }
      } finally {
        relay.child.kill('SIGTERM')
        await relay.ended
      }
    } finally {
      await postgres.stop()
      rmSync(folder, { recursive: true })
    }
  })
})

/** The block of code that begins with the file's name. */
function fileOf(page: string, name: string): string {
  const [, code] = new RegExp(`\`\`\`[jt]s\n(// ${name.replaceAll('.', '[.]')}\n.*?)\`\`\``, 'su').exec(page) ?? []
  if (code === undefined) throw new Error(`the page has no ${name}`)
  return code
}

/** What follows each `$ ` in its blocks of console. */
function commandsOf(page: string): { readonly command: string; readonly answer: string }[] {
  const blocks = [...page.matchAll(/```console\n(.*?)```/gsu)].map(([, text = '']) => text)
  return blocks.flatMap((block) =>
    block
      .split(/^\$ /mu)
      .slice(1)
      .map((step) => {
        const [command = '', ...lines] = step.split('\n')
        return { command, answer: lines.join('\n').trimEnd() }
      }),
  )
}

/** What a command line wrote to standard output. */
async function runShell(line: string, cwd: string, env: Readonly<Record<string, string>>): Promise<string> {
  const child = spawn('sh', ['-c', line], { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`${line} exited with ${code}`)
  return text
}
