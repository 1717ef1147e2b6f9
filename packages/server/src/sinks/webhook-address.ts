/**
 * Which addresses a webhook may be sent to: those of the public internet. A URL in a config must not become a way into the network the relay stands in.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net'

/** IPv4 that is not of the public internet: the IANA special-purpose registry, multicast, reserved, and the metadata address of Azure. */
const REFUSED_4: readonly (readonly [string, number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['168.63.129.16', 32],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
]

/** Inside 2000::/3, which alone is public: protocol assignments with Teredo, documentation, 6to4. */
const REFUSED_6: readonly (readonly [string, number])[] = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
]

const refused4 = new BlockList()
for (const [net, prefix] of REFUSED_4) refused4.addSubnet(net, prefix, 'ipv4')
const refused6 = new BlockList()
for (const [net, prefix] of REFUSED_6) refused6.addSubnet(net, prefix, 'ipv6')
const public6 = new BlockList()
public6.addSubnet('2000::', 3, 'ipv6')

/** IPv4 inside IPv6, as the last two groups: mapped (::ffff:0:0/96), and the translators' well-known prefix (64:ff9b::/96). */
const EMBEDDED = /^\[(?:::ffff|64:ff9b:):([0-9a-f]{1,4}):([0-9a-f]{1,4})\]$/u

/** Whether the address, as a socket tells it, is of the public internet. What cannot be read is not. */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !refused4.check(address, 'ipv4')
  // With a zone (fe80::1%eth0) it is of one link.
  if (!isIPv6(address) || address.includes('%')) return false
  // The one spelling of an address, so that none is read in two ways.
  const spelled = new URL(`http://[${address}]/`).hostname
  const embedded = EMBEDDED.exec(spelled)
  if (embedded !== null) {
    const [high, low] = [Number.parseInt(embedded[1] ?? '', 16), Number.parseInt(embedded[2] ?? '', 16)]
    return isPublicAddress(`${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`)
  }
  return public6.check(spelled.slice(1, -1), 'ipv6') && !refused6.check(spelled.slice(1, -1), 'ipv6')
}
