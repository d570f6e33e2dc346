-- Takes note of how far holds have come.
--
-- KEYS: epoch, leases, then one per hold.
-- ARGV: 1 the epoch's id, 2 the base of all names, 3 the node, 4 the header,
--       then three per hold: id, "stage slot", scopes.
-- Header: now (-1 = the server's), and the leases of a hold that is held, used
--         or counted, lapsed, closed.

local epoch = redis.call('GET', KEYS[1])
if not epoch or string.match(epoch, '^%S+') ~= ARGV[1] then
  return redis.error_reply('EPOCH ' .. (epoch or 'none'))
end
local base, node, leases_key = ARGV[2], ARGV[3], KEYS[2]
local given, held_ms, used_ms, lapsed_ms, closed_ms = struct.unpack('<ddddd', ARGV[4])
local LEASE = {[HELD] = held_ms, [USED] = used_ms, [LAPSED] = lapsed_ms, [COUNTED] = used_ms, [CLOSED] = closed_ms}
local NONE = 5
-- By where the hold stands, then by what is said of it (held, used, counted,
-- returned, recorded): where it stands then, and whether one is added to or taken
-- off the live, undecided and used calls.
local STEPS = {
  [NONE] = '0++0 1+0+ 300+ 4000 4000',
  [HELD] = '0000 10-+ 3--+ 4--0 4--+',
  [USED] = '1000 1000 3-00 4-00 4-00',
  [LAPSED] = '2000 1+00 3000 4000 4000',
  [COUNTED] = '3000 3000 3000 4000 4000',
}
local BY = {['-'] = -1, ['0'] = 0, ['+'] = 1}

local now = clock(given)
expire(base, leases_key, now, lapsed_ms)
for i = 1, #KEYS - 2 do
  local key, at = KEYS[2 + i], 2 + 3 * i
  local id, scopes, verdict, owner = ARGV[at], ARGV[at + 2], '', node
  local stage, slot = string.match(ARGV[at + 1], '^(%d) (%-?%d+)$')
  stage, slot = tonumber(stage), tonumber(slot)
  local text, kept = redis.call('GET', key), NONE
  if text then
    kept, slot, owner, scopes, verdict = parse_hold(text)
  end
  if kept ~= CLOSED then
    local after, live, open, used = string.match(STEPS[kept], '(.)(.)(.)(.)', 5 * stage + 1)
    after = tonumber(after)
    take(base, scopes, slot, BY[live], BY[open], BY[used])
    if after == CLOSED then
      verdict = ''
    end
    -- Who speaks for a hold leads its call.
    if after ~= kept or owner ~= node then
      redis.call('SET', key, format_hold(after, slot, node, scopes, verdict))
    end
    redis.call('ZADD', leases_key, now + LEASE[after], id)
  end
end
return 'OK'
