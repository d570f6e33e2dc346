-- What the ledger's scripts share. The Rust files account.rs and memory.rs say
-- in words and types what is done here.
--
-- An account is one string of little-endian 32-bit integers:
--   live, total, newest slot, then start and used of the hour, day, week and
--   month asked for last, then slot and calls of the undecided holds.
-- A hold is "kept;slot;node;scopes;verdict", its scopes separated by commas.

local HEAD = 11
local FRESH = struct.pack('<i4i4i4i4i4i4i4i4i4i4i4', 0, 0, -1, -1, 0, -1, 0, -1, 0, -1, 0)

local function format(length)
  if length == HEAD + 2 then
    return '<i4i4i4i4i4i4i4i4i4i4i4i4i4'
  end
  return '<' .. string.rep('i4', length)
end

local function decode(raw)
  raw = raw or FRESH
  local length = #raw / 4
  local account = {struct.unpack(format(length), raw)}
  account[length + 1] = nil
  return account
end

local function encode(account)
  return struct.pack(format(#account), unpack(account))
end

local PER_DAY, SLOTS_KEPT = 96, 76 * 96

-- Sums up what was used in the account's windows at these places, each since its start.
local function sum_up(account, slots_key, places)
  local newest = account[3]
  local from = newest + 1
  for _, place in ipairs(places) do
    account[place + 1] = 0
    from = math.min(from, account[place])
  end
  if newest - from > SLOTS_KEPT then
    -- A clock was far ahead, or the distant past is asked for: all that there is is less.
    local known = redis.call('HGETALL', slots_key)
    for i = 1, #known, 2 do
      for _, place in ipairs(places) do
        if tonumber(known[i]) >= account[place] then
          account[place + 1] = account[place + 1] + tonumber(known[i + 1])
        end
      end
    end
    return
  end
  while from <= newest do
    local to = math.min(newest, from + 499)
    local names = {}
    for slot = from, to do
      names[#names + 1] = slot
    end
    local counts = redis.call('HMGET', slots_key, unpack(names))
    for i = 1, #names do
      if counts[i] then
        for _, place in ipairs(places) do
          if names[i] >= account[place] then
            account[place + 1] = account[place + 1] + tonumber(counts[i])
          end
        end
      end
    end
    from = to + 1
  end
end

-- Makes the account's four windows those that start as asked. Whether one changed.
local function roll(account, slots_key, hour, day, week, month)
  local starts, changed = {hour, day, week, month}, {}
  for kind = 1, 4 do
    local place = 2 + 2 * kind
    if account[place] ~= starts[kind] then
      account[place] = starts[kind]
      changed[#changed + 1] = place
    end
  end
  sum_up(account, slots_key, changed)
  return #changed > 0
end

-- Once a day, with the first call that is used in it.
local function forget_before(account, slots_key, slot)
  if account[3] < 0 or math.floor(account[3] / PER_DAY) >= math.floor(slot / PER_DAY) then
    return
  end
  local old = {}
  for _, known in ipairs(redis.call('HKEYS', slots_key)) do
    if tonumber(known) < slot - SLOTS_KEPT then
      old[#old + 1] = known
    end
  end
  for from = 1, #old, 500 do
    redis.call('HDEL', slots_key, unpack(old, from, math.min(#old, from + 499)))
  end
end

-- Undecided holds taken in the slots from `start` on.
local function open_since(account, start)
  local sum = 0
  for place = HEAD + 1, #account, 2 do
    if account[place] >= start then
      sum = sum + account[place + 1]
    end
  end
  return sum
end

local function add_open(account, slot, calls)
  for place = HEAD + 1, #account, 2 do
    if account[place] == slot then
      account[place + 1] = account[place + 1] + calls
      if account[place + 1] <= 0 then
        local last = #account
        account[place], account[place + 1] = account[last - 1], account[last]
        account[last], account[last - 1] = nil, nil
      end
      return
    end
  end
  if calls > 0 then
    account[#account + 1] = slot
    account[#account + 1] = calls
  end
end

local function add_used(account, slots_key, slot, calls)
  local after = redis.call('HINCRBY', slots_key, slot, calls)
  if after <= 0 then
    redis.call('HDEL', slots_key, slot)
    calls = calls - after
  end
  if slot > account[3] then
    account[3] = slot
  end
  for place = 4, 10, 2 do
    if account[place] >= 0 and slot >= account[place] then
      account[place + 1] = math.max(0, account[place + 1] + calls)
    end
  end
end

local function parse_hold(text)
  local kept, slot, node, scopes, verdict = string.match(text, '^(%d);(%-?%d+);([^;]*);([^;]*);(.*)$')
  return tonumber(kept), tonumber(slot), node, scopes, verdict
end

local function format_hold(kept, slot, node, scopes, verdict)
  return kept .. ';' .. slot .. ';' .. node .. ';' .. scopes .. ';' .. verdict
end

-- One step of a hold in each of its accounts.
local function take(base, scopes, slot, live, open, used)
  if live == 0 and open == 0 and used == 0 then
    return
  end
  local names, keys = {}, {}
  for scope in string.gmatch(scopes, '[^,]+') do
    names[#names + 1] = scope
    keys[#keys + 1] = base .. 's:' .. scope
  end
  local raws, writes = redis.call('MGET', unpack(keys)), {}
  for i = 1, #names do
    if not raws[i] then
      redis.call('SADD', base .. 'scopes', names[i])
    end
    local account = decode(raws[i])
    account[1] = math.max(0, account[1] + live)
    if open ~= 0 then
      add_open(account, slot, open)
    end
    if used > 0 then
      account[2] = account[2] + used
      forget_before(account, base .. 'u:' .. names[i], slot)
      add_used(account, base .. 'u:' .. names[i], slot, used)
    end
    writes[2 * i - 1], writes[2 * i] = keys[i], encode(account)
  end
  redis.call('MSET', unpack(writes))
end

-- Where a hold stands: account.rs calls it Kept.
local HELD, USED, LAPSED, COUNTED, CLOSED = 0, 1, 2, 3, 4

-- Forgets holds of which nobody has spoken for the time of their lease. Whether there were any.
local function expire(base, leases_key, now, lapsed_ms)
  local due = redis.call('ZRANGEBYSCORE', leases_key, '-inf', now, 'LIMIT', 0, 64)
  for i = 1, #due do
    local id = due[i]
    local key = base .. 'h:' .. id
    local text = redis.call('GET', key)
    local kept, slot, node, scopes, verdict
    if text then
      kept, slot, node, scopes, verdict = parse_hold(text)
    end
    if kept == USED or kept == COUNTED then
      take(base, scopes, slot, kept == USED and -1 or 0, 0, 0)
      redis.call('SET', key, format_hold(LAPSED, slot, node, scopes, verdict))
      redis.call('ZADD', leases_key, now + lapsed_ms, id)
    else
      if kept == HELD then
        take(base, scopes, slot, -1, -1, 0)
      end
      redis.call('DEL', key)
      redis.call('ZREM', leases_key, id)
    end
  end
  return #due > 0
end

local function clock(given)
  if given >= 0 then
    return given
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
