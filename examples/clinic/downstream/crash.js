/**
 * Loaded into each thread of the example's relay (`node --import`): lets the story kill the forwarder, which is a thread of the relay and has no process id of its own.
 * On SIGUSR2 that thread exits where it stands, as if it had crashed. The relay itself knows nothing of this.
 */
import { BroadcastChannel, isMainThread } from 'node:worker_threads'

const channel = new BroadcastChannel('crash')
if (isMainThread) process.on('SIGUSR2', () => channel.postMessage('now'))
else if (process.argv[1]?.endsWith('forwarding/worker.js')) channel.onmessage = () => process.exit(1)
channel.unref()
