/**
 * The webhook sink under the conformance kit, with a receiver that stores what is newer and refuses what is poison.
 */
import { openSink, webhook } from '@rejoin/server/sinks/webhook'
import { POISON } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import { verifyWebhook } from '@rejoin/server/webhook'
import type { WebhookMessage } from '@rejoin/server/webhook'
import type { OpenSubject } from '../support/conformance.ts'
import type { Received } from '../support/deliveries.ts'
import { foldMessages, startReceiver } from '../support/deliveries.ts'

const SECRET = 'a secret that nobody can guess'

const under: Conformance = {
  name: 'webhook',
  traits: { transactional: false, strategies: ['state', 'actions'], readable: false },
  powers: {
    fence: true,
    guard: true,
    identity: 'a receiver cannot be asked whose it is',
    cursor: 'a receiver keeps no cursor',
  },
  mechanism:
    'confirmed by 2xx; cursor and fence in the notes of the relay; a message has its version, by which its receiver knows what is newer',
  destination: async (): Promise<Destination> => {
    let taken: string[] = []
    let isPoison = false
    let losesReply = false
    const answer = async ({ headers, body }: Received): Promise<number> => {
      if ((await verifyWebhook({ secret: SECRET, headers, body })).type === 'refused') return 401
      if (isPoison && (JSON.parse(body) as WebhookMessage).value?.['name'] === POISON) return 422
      taken.push(body)
      return 204
    }
    const listener = (received: Received, response: Parameters<NonNullable<Parameters<typeof startReceiver>[0]>>[1]): void => {
      void answer(received).then((status) => {
        if (losesReply) response.destroy()
        else response.writeHead(status).end()
        losesReply = false
      })
    }
    let receiver = await startReceiver(listener)
    const { url, port } = receiver
    return {
      open: (context) => openSink(webhook({ url, secret: SECRET, allowPrivate: true }).options, context),
      rows: async () => foldMessages(taken),
      wipe: async () => {
        taken = []
      },
      restart: async () => {
        await receiver.close()
        receiver = await startReceiver(listener, undefined, port)
      },
      poison: async () => {
        isPoison = true
        return async () => {
          isPoison = false
        }
      },
      loseReply: async () => {
        losesReply = true
      },
      absent: {
        drop: 'a receiver has no targets',
        backup: 'what a receiver stores is its own',
        unique: 'what a receiver stores is its own',
        tamper: 'what a receiver stores is its own',
      },
      close: () => receiver.close(),
    }
  },
}

/** Its receiver is started with it. */
export const open: OpenSubject = async () => ({ under, server: `Node.js ${process.versions.node}`, close: async () => undefined })
