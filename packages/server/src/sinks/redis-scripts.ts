/**
 * The Lua of the Redis sink: what must happen as one, fence and guard and row and cursor. In every script KEYS[1] is the cursor, a hash of log, fence, view, version, mark, refreshed, attempted and declared.
 */

/** ARGV[1] fence, ARGV[2] place as `placeText` spells it. `fenced` when a later forwarder has begun, `lost` when the cursor is not where it was left: wiped, or put back to a copy. */
const FENCE = `
local fence = tonumber(redis.call('HGET', KEYS[1], 'fence') or '0')
if fence > tonumber(ARGV[1]) then return 'fenced' end
local place = redis.call('HMGET', KEYS[1], 'view', 'version', 'refreshed')
if fence < tonumber(ARGV[1]) or (place[1] or '') .. '/' .. (place[2] or '') .. '/' .. (place[3] or '') ~= ARGV[2] then return 'lost' end
`

/** Notes the highest version that may have been written, before it is. */
const ATTEMPT = `
local attempted = tonumber(redis.call('HGET', KEYS[1], 'attempted') or '0')
if tonumber(ARGV[3]) > attempted then redis.call('HSET', KEYS[1], 'attempted', ARGV[3]) end
`

/** ARGV: log, adopt, declared → 'other' and its log; or 'begun', fence, the cursor's fields. A declaration or log that changed forgets the place, never the stamps. */
export const BEGIN: string = `
local log = redis.call('HGET', KEYS[1], 'log')
if log and log ~= ARGV[1] and ARGV[2] ~= '1' then return {'other', log} end
if log ~= ARGV[1] or ARGV[2] == '1' or redis.call('HGET', KEYS[1], 'declared') ~= ARGV[3] then
  redis.call('HDEL', KEYS[1], 'view', 'version', 'mark', 'refreshed')
end
redis.call('HSET', KEYS[1], 'log', ARGV[1], 'declared', ARGV[3])
local mine = redis.call('HINCRBY', KEYS[1], 'fence', 1)
return {'begun', mine, redis.call('HGETALL', KEYS[1])}
`

/**
 * Rows. KEYS: cursor, graves, then of each row its key and its index. ARGV: fence, place, version, force, time to live in ms or 0, 'hash' or 'json', then of each row its member in the index, its stamp, and the count of the texts
 * that follow, or -1 to delete. A grave is the stamp of a deleted key: what is older does not bring it back.
 */
export const WRITE: string = `${FENCE}${ATTEMPT}
local at, ttl = 7, tonumber(ARGV[5])
for k = 3, #KEYS, 2 do
  local row, index, member, stamp, count = KEYS[k], KEYS[k + 1], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local grave = index .. '\\0' .. member
  local stored = nil
  if ARGV[6] == 'hash' then
    local found = redis.pcall('HGET', row, 'rejoin_version')
    if type(found) == 'string' then stored = tonumber(found) end
  else
    local found = redis.pcall('GETRANGE', row, 0, 40)
    if type(found) == 'string' then stored = tonumber(string.match(found, '^{"rejoin_version":(%d+)')) end
  end
  stored = math.max(stored or 0, tonumber(redis.call('ZSCORE', KEYS[2], grave) or '0'))
  if ARGV[4] == '1' or stored <= stamp then
    redis.call('DEL', row)
    if count < 0 then
      redis.call('ZREM', index, member)
      redis.call('ZADD', KEYS[2], stamp, grave)
    else
      if ARGV[6] == 'hash' then
        for i = at + 3, at + 2 + count, 1000 do
          redis.call('HSET', row, unpack(ARGV, i, math.min(i + 999, at + 2 + count)))
        end
      else
        redis.call('SET', row, ARGV[at + 3])
      end
      if ttl > 0 then redis.call('PEXPIRE', row, ttl) end
      redis.call('ZADD', index, 0, member)
      redis.call('ZREM', KEYS[2], grave)
    end
  end
  at = at + 3 + math.max(count, 0)
end
return 'ok'
`

/** Messages. KEYS: cursor, recent, then of each message its stream. ARGV: fence, place, version, length of a stream or 0, then of each message id, version, JSON. What a lost answer left there is not added twice. */
export const PUBLISH: string = `${FENCE}${ATTEMPT}
local at, longest = 5, ARGV[4]
for k = 3, #KEYS do
  local known = KEYS[k] .. '\\0' .. ARGV[at]
  if not redis.call('ZSCORE', KEYS[2], known) then
    local fields = {'id', ARGV[at], 'version', ARGV[at + 1], 'message', ARGV[at + 2]}
    if longest == '0' then
      redis.call('XADD', KEYS[k], '*', unpack(fields))
    else
      redis.call('XADD', KEYS[k], 'MAXLEN', '~', longest, '*', unpack(fields))
    end
    redis.call('ZADD', KEYS[2], ARGV[at + 1], known)
  end
  at = at + 3
end
return 'ok'
`

/** KEYS: cursor, graves, recent. ARGV: fence, place, then view, version, mark, refreshed ('' for none), graves to keep. */
export const MOVED: string = `${FENCE}
redis.call('HSET', KEYS[1], 'view', ARGV[3], 'version', ARGV[4], 'mark', ARGV[5], 'refreshed', ARGV[6])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[7]) - 1)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[4])
return 'ok'
`

/** KEYS: cursor. ARGV: fence, place. */
export const CHECK: string = `${FENCE}
return 'ok'
`
