/**
 * Which pages may talk to a relay: without auth only this machine's own, whatever a name resolves to.
 */
import { describe, expect, it } from 'vitest'
import type { OriginPolicy } from '#server/http/origin.js'
import { isLoopbackAddress, originPolicy, originProblem } from '#server/http/origin.js'

const loopback: OriginPolicy = { type: 'loopback' }

describe('without auth', () => {
  it.each([
    'localhost',
    'localhost:4400',
    'LocalHost:80',
    '127.0.0.1',
    '127.0.0.1:4400',
    '127.9.8.7',
    '[::1]',
    '[::1]:4400',
    '[0:0:0:0:0:0:0:1]:4400',
  ])('Host %s is let through', (host) => {
    expect(originProblem({ host, origin: undefined }, loopback)).toBeUndefined()
  })

  it.each([
    undefined,
    '',
    'evil.example',
    'evil.example:4400',
    '127.0.0.1.evil.example',
    'localhost.evil.example',
    'evil-localhost',
    'localhost.',
    '0.0.0.0',
    '0.0.0.0:4400',
    '[::]',
    '[::ffff:10.0.0.1]',
    '192.168.1.2:4400',
    '10.0.0.1',
    '128.0.0.1',
    '1127.0.0.1',
    'user@127.0.0.1',
    '127.0.0.1@evil.example',
    '127.0.0.1/evil.example',
    'evil.example#127.0.0.1',
    'evil.example?127.0.0.1',
    '127.0.0.1:4400:80',
    '127.0.0.1 evil.example',
    '127.0.0.1\\evil.example',
    '[::1',
    '::1',
  ])('Host %s is refused: DNS rebinding comes with a name of its own', (host) => {
    expect(originProblem({ host, origin: undefined }, loopback)).toMatch(/^Host .* is not a loopback address, and this relay has no auth$/u)
  })

  it.each([undefined, 'http://localhost:5173', 'http://127.0.0.1', 'https://127.0.0.1:8443', 'http://[::1]:3000'])(
    'Origin %s is let through',
    (origin) => {
      expect(originProblem({ host: '127.0.0.1:4400', origin }, loopback)).toBeUndefined()
    },
  )

  it.each([
    '',
    'null',
    'https://evil.example',
    'http://127.0.0.1.evil.example',
    'http://localhost.evil.example:4400',
    'file://',
    'chrome-extension://abc',
    'http://',
    'http://user@localhost',
    'http://localhost/path',
    'ws://localhost',
    'http://192.168.0.1',
  ])('Origin %s is refused: every page can reach the loopback', (origin) => {
    expect(originProblem({ host: '127.0.0.1:4400', origin }, loopback)).toMatch(/^Origin .* is not a loopback address/u)
  })
})

describe('with auth', () => {
  const listed: OriginPolicy = { type: 'listed', origins: ['https://app.example', 'http://localhost:5173'] }

  it('any Host is let through, and every Origin that is listed, however it is spelled', () => {
    for (const origin of ['https://app.example', 'https://APP.example', 'https://app.example:443', 'http://localhost:5173'])
      expect(originProblem({ host: 'relay.example', origin }, listed)).toBeUndefined()
    for (const origin of [
      'https://evil.example',
      'http://app.example',
      'https://app.example:8443',
      'https://app.example.evil',
      'null',
      'http://localhost',
      '',
    ])
      expect(originProblem({ host: 'relay.example', origin }, listed), origin).toMatch(/is not among the origins of this relay$/u)
  })

  it('a request without Origin is not a page and is let through; * lists every page', () => {
    expect(originProblem({ host: 'relay.example', origin: undefined }, listed)).toBeUndefined()
    expect(originProblem({ host: 'relay.example', origin: 'null' }, { type: 'listed', origins: ['*'] })).toBeUndefined()
  })
})

describe('the policy', () => {
  it('is what the options say', () => {
    const auth = {}
    expect(originPolicy({ auth: undefined, origins: ['*'], insecure: false })).toEqual({ type: 'loopback' })
    expect(originPolicy({ auth: undefined, origins: ['*'], insecure: true })).toEqual({ type: 'any' })
    expect(originPolicy({ auth, origins: ['https://a.example'], insecure: false })).toEqual({
      type: 'listed',
      origins: ['https://a.example'],
    })
    expect(originPolicy({ auth, origins: ['https://a.example'], insecure: true })).toEqual({
      type: 'listed',
      origins: ['https://a.example'],
    })
  })

  it('knows which addresses other machines cannot reach', () => {
    expect(['127.0.0.1', '127.1.2.3', 'localhost', '::1', '[::1]'].every(isLoopbackAddress)).toBe(true)
    expect(['0.0.0.0', '::', '192.168.1.1', 'relay.example', '::ffff:127.0.0.1', ''].some(isLoopbackAddress)).toBe(false)
  })
})
