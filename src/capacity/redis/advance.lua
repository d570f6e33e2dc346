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
-- returned, recorded): where it stands then, and what changes of live,
-- undecided and used calls.
local STEPS = {
  [NONE] = {{HELD, 1, 1, 0}, {USED, 1, 0, 1}, {COUNTED, 0, 0, 1}, {CLOSED, 0, 0, 0}, {CLOSED, 0, 0, 0}},
  [HELD] = {{HELD, 0, 0, 0}, {USED, 0, -1, 1}, {COUNTED, -1, -1, 1}, {CLOSED, -1, -1, 0}, {CLOSED, -1, -1, 1}},
  [USED] = {{USED, 0, 0, 0}, {USED, 0, 0, 0}, {COUNTED, -1, 0, 0}, {CLOSED, -1, 0, 0}, {CLOSED, -1, 0, 0}},
  [LAPSED] = {{LAPSED, 0, 0, 0}, {USED, 1, 0, 0}, {COUNTED, 0, 0, 0}, {CLOSED, 0, 0, 0}, {CLOSED, 0, 0, 0}},
  [COUNTED] = {{COUNTED, 0, 0, 0}, {COUNTED, 0, 0, 0}, {COUNTED, 0, 0, 0}, {CLOSED, 0, 0, 0}, {CLOSED, 0, 0, 0}},
}

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
    local step = STEPS[kept][stage + 1]
    take(base, scopes, slot, step[2], step[3], step[4])
    if step[1] == CLOSED then
      verdict = ''
    end
    -- Who speaks for a hold leads its call.
    if step[1] ~= kept or owner ~= node then
      redis.call('SET', key, format_hold(step[1], slot, node, scopes, verdict))
    end
    redis.call('ZADD', leases_key, now + LEASE[step[1]], id)
  end
end
return 'OK'
