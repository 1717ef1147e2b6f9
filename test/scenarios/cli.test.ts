/**
 * The command line as people and scripts meet it: a real process, a real port, real signals.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { decodeFrames, encodeFrames } from '@rejoin/shared/wire'
import type { RelayFrame } from '@rejoin/shared/wire'
import type { Serving } from '../support/cli.ts'
import { runCli, startServe } from '../support/cli.ts'

const folder = mkdtempSync(join(tmpdir(), 'rejoin-cli-'))
const running: Serving[] = []
afterEach(async () => {
  for (const { child, ended } of running.splice(0)) {
    child.kill('SIGKILL')
    await ended
  }
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let folders = 0
const secret = join(folder, 'secret')
writeFileSync(secret, 'a secret of at least thirty-two bytes, for HS256\n')

async function serve(args: readonly string[] = [], env?: Readonly<Record<string, string>>): Promise<Serving> {
  const serving = await startServe(['--data', join(folder, `data-${folders++}`), ...args], { cwd: folder, ...(env && { env }) })
  running.push(serving)
  return serving
}

describe('rejoin serve', () => {
  it('says where it listens in one line of JSON on standard output, logs to standard error, and is ready', async () => {
    const { url, output } = await serve()
    expect(output.stdout).toBe(`{"event":"listening","url":"${url}"}\n`)
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:[1-9]\d*$/u)
    expect((await fetch(`${url}/readyz`)).status).toBe(200)
    expect(output.stderr).toContain('no auth: only this machine may connect')
    expect(
      output.stderr
        .trim()
        .split('\n')
        .every((line) => typeof JSON.parse(line) === 'object'),
    ).toBe(true)
  })

  it.each(['SIGTERM', 'SIGINT'] as const)('drains on %s: peers are told, exit 0 within 5 s', async (signal) => {
    const { url, child, ended } = await serve()
    const socket = new WebSocket(`${url.replace('http', 'ws')}/sync`)
    const frames: RelayFrame[] = []
    const closed = new Promise<number>((resolve) => socket.once('close', resolve))
    const welcomed = new Promise<void>((resolve) => {
      socket.on('message', (data: Buffer) => {
        const decoded = decodeFrames(new Uint8Array(data), { from: 'relay' })
        if (decoded.type === 'frames') frames.push(...decoded.frames)
        if (frames.some(({ type }) => type === 'welcome')) resolve()
      })
    })
    socket.once('open', () => socket.send(encodeFrames([{ type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'test', token: '' }])))
    await welcomed
    const asked = performance.now()
    child.kill(signal)
    const { code } = await ended
    expect([code, performance.now() - asked < 5000]).toEqual([0, true])
    expect(frames.at(-1)).toMatchObject({ type: 'goaway', code: 'draining' })
    expect(await closed).toBe(4503)
    await expect(fetch(`${url}/healthz`)).rejects.toThrow()
  })

  it('takes a config file in TypeScript, with auth, and then any host', async () => {
    const server = JSON.stringify(import.meta.resolve('@rejoin/server'))
    const config = join(folder, 'auth.config.ts')
    writeFileSync(
      config,
      `import { defineConfig, jwt } from ${server}\nimport { readFileSync } from 'node:fs'\nexport default defineConfig({ host: '0.0.0.0', auth: jwt({ secret: readFileSync(${JSON.stringify(secret)}, 'utf8') }) })\n`,
    )
    const { url, output } = await serve(['--config', config])
    const local = url.replace('0.0.0.0', '127.0.0.1')
    expect((await fetch(`${local}/v1/documents/clinic-1`)).status).toBe(401)
    const { stdout: token } = await runCli(['token', '--secret-file', secret, '--sub', 'alice', '--doc', 'clinic-*=read'])
    const statusOf = async (document: string, bearer: string): Promise<number> =>
      (await fetch(`${local}/v1/documents/${document}`, { headers: { authorization: `Bearer ${bearer}` } })).status
    // Nobody has written anything: what may be read is not there, what may not is refused before that.
    expect(
      await Promise.all([statusOf('clinic-1', token.trim()), statusOf('other', token.trim()), statusOf('clinic-1', `${token.trim()}x`)]),
    ).toEqual([404, 403, 401])
    expect(output.stderr).not.toContain(token.trim().slice(0, 20))
    expect(output.stderr).not.toContain('a secret of')
  })

  it('takes auth from the environment as well', async () => {
    const { url } = await serve([], { REJOIN_JWT_SECRET_FILE: secret, REJOIN_LOG_LEVEL: 'silent' })
    expect((await fetch(`${url}/v1/documents/x`)).status).toBe(401)
    expect((await fetch(`${url}/healthz`, { headers: { host: 'relay.example' } })).status).toBe(200)
  })

  it('with --insecure listens anywhere, and says what that means', async () => {
    const { output } = await serve(['--host', '0.0.0.0', '--insecure'])
    expect(output.stderr).toContain('no auth, and insecure: everybody who reaches this port may read and write everything')
  })

  it('refuses a folder that another relay has', async () => {
    await serve(['--data', join(folder, 'shared')])
    const { code, stderr } = await runCli(['serve', '--port', '0', '--data', join(folder, 'shared')], { cwd: folder })
    expect([code, stderr]).toEqual([1, expect.stringMatching(/another process serves the data folder/u)])
  })

  it('fails on a port that is taken, and says which and what to do, exit 1', async () => {
    const { port } = new URL((await serve()).url)
    const { code, stdout, stderr } = await runCli(['serve', '--port', port, '--data', join(folder, 'second')], { cwd: folder })
    expect([code, stdout, stderr]).toEqual([1, '', expect.stringContaining(`port ${port} of 127.0.0.1 is taken`)])
    expect(stderr).toMatch(/stop what listens there, or give another port \(0 for a free one\)/u)
  })

  it.each<[readonly string[], RegExp]>([
    [
      ['--host', '0.0.0.0'],
      /host: 0\.0\.0\.0 can be reached from other machines, and there is no auth; set auth in the config file, listen on 127\.0\.0\.1, or say --insecure/u,
    ],
    [['--prot', '1'], /unknown option '--prot'[\s\S]*--port/u],
    [['--port', '99999'], /--port is a whole number from 0 \(a free one\) to 65535; this is "99999"/u],
    [['--log-level', 'loud'], /--log-level is one of silent, error, warn, info, debug/u],
    [['--config', 'absent.ts'], /--config: there is no file .*absent\.ts/u],
  ])('refuses %j: says why, makes nothing, exit 2', async (args, message) => {
    const { code, stdout, stderr } = await runCli(['serve', '--data', join(folder, 'never'), ...args], { cwd: folder })
    expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(message)])
    expect(readdirSync(folder)).not.toContain('never')
  })
})

describe('rejoin token', () => {
  it('prints one token and nothing else', async () => {
    const { code, stdout, stderr } = await runCli([
      'token',
      '--secret-file',
      secret,
      '--sub',
      'alice',
      '--doc',
      'clinic-*=write',
      '--doc',
      'a=b=read',
      '--ttl',
      '15m',
      '--admin',
    ])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/u)
    const claims = JSON.parse(Buffer.from(stdout.split('.')[1] ?? '', 'base64url').toString()) as { iat: number; exp: number }
    expect(claims).toMatchObject({ sub: 'alice', docs: { 'clinic-*': 'write', 'a=b': 'read' }, admin: true })
    expect(claims.exp - claims.iat).toBe(900)
  })

  it.each<[readonly string[], RegExp]>([
    [['--sub', 'a'], /required option '--secret-file <file>' not specified/u],
    [['--secret-file', secret], /required option '--sub <principal>' not specified/u],
    [['--secret-file', 'absent', '--sub', 'a'], /--secret-file: .*absent cannot be read/u],
    [['--secret-file', secret, '--sub', 'a', '--doc', 'clinic'], /--doc is pattern=access, such as clinic-\*=write; this is "clinic"/u],
    [['--secret-file', secret, '--sub', 'a', '--doc', 'cl*nic=write'], /--doc: in "cl\*nic" the \* is not at the end/u],
    [['--secret-file', secret, '--sub', 'a', '--doc', 'clinic=own'], /--doc: "clinic" is neither "read", "write" nor "none"/u],
    [['--secret-file', secret, '--sub', 'a', '--ttl', 'soon'], /--ttl is a duration such as 30s, 15m, 1h or 7d; this is "soon"/u],
  ])('refuses %j: says why, exit 2', async (args, message) => {
    const { code, stdout, stderr } = await runCli(['token', ...args], { cwd: folder })
    expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(message)])
  })
})
