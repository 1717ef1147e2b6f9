/** @hocuspocus/server with its SQLite extension, as its own page sets it up. */
import { SQLite } from '@hocuspocus/extension-sqlite'
import { Server } from '@hocuspocus/server'

const [port = '0', folder = '.'] = process.argv.slice(2)
const server = new Server({
  port: Number(port),
  address: '127.0.0.1',
  quiet: true,
  extensions: [new SQLite({ database: `${folder}/hocuspocus.db` })],
})
await server.listen()
process.stdout.write('listening\n')
