"""
The scripts of a feature store in Redis. Each is the whole change of one event or erasure, or the read of one user.

The keys of a user are in the order of `user_keys`, and that of the erasure follows.
"""

import hashlib

from recstore.port import EventOutcome

OUTCOMES = (EventOutcome.REPEATED, EventOutcome.ACCEPTED, EventOutcome.ERASED)
"""The outcome of an event by the number that its script returns."""

REFUSED = """
local function refused(erasure, at)
    local erased = redis.call('HMGET', erasure, 'at_us', 'readmitted')
    return erased[1] and (erased[2] ~= '1' or tonumber(at) < tonumber(erased[1]))
end
"""
_EXPIRE = """
local function expire(ttl)
    if ttl == '0' then return end
    for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[5]}) do redis.call('EXPIRE', key, ttl) end
end
"""
_SCAN = """
if redis.call('HEXISTS', KEYS[1], 'age_group') == 0 then return false end
local profile = redis.call('HGETALL', KEYS[1])
local items = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for _, each in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')) do items[#items + 1] = each end
local ids = {}
for i = 1, #items, 2 do ids[#ids + 1] = items[i] end
local weights = {}
for first = 1, #ids, 1000 do
    local some = redis.call('HMGET', KEYS[3], unpack(ids, first, math.min(first + 999, #ids)))
    for i = 1, #some do weights[#weights + 1] = some[i] end
end
return {profile, items, weights}
"""
_READ = """
return {
    redis.call('HGETALL', KEYS[1]),
    redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2]),
    redis.call('ZRANGE', KEYS[5], ARGV[1], ARGV[2])
}
"""
# The arguments are the time, the age group of a new user, the time to live, the user id, the new age group, and a name and
# a value for each attribute.
_UPDATE = f"""
{REFUSED}{_EXPIRE}
local at = ARGV[1]
if refused(KEYS[6], at) then return 2 end
local changed = redis.call('HSETNX', KEYS[1], 'age_group', ARGV[2])
if changed == 1 then redis.call('HSET', KEYS[1], 'user_id', ARGV[4]) end
for i = 6, #ARGV, 2 do
    local field, value = 'a:' .. ARGV[i], ARGV[i + 1]
    local us, former = string.match(redis.call('HGET', KEYS[1], field) or '', '^(%d+)|(.*)$')
    if not us or tonumber(at) > tonumber(us) or (tonumber(at) == tonumber(us) and value > former) then
        redis.call('HSET', KEYS[1], field, at .. '|' .. value)
        if ARGV[i] == 'age_group' then redis.call('HSET', KEYS[1], 'age_group', ARGV[5]) end
        changed = 1
    end
end
if changed == 1 then expire(ARGV[3]) end
return changed
"""
# Numbers stay strings, because Lua would print long ones with an exponent. The script notes the event last: if an earlier
# command fails, the next delivery is not taken for a repeated one.
_APPLY = f"""
{REFUSED}{_EXPIRE}
local digest, now, window = ARGV[1], ARGV[2], ARGV[3]
if refused(KEYS[6], ARGV[7]) then return 2 end
local oldest = tonumber(now) - tonumber(window)
local seen = redis.call('ZSCORE', KEYS[4], digest)
if seen and tonumber(seen) > oldest then return 0 end
if redis.call('HSETNX', KEYS[1], 'age_group', ARGV[4]) == 1 then redis.call('HSET', KEYS[1], 'user_id', ARGV[11]) end
redis.call('HINCRBY', KEYS[1], 'session_ms', ARGV[6])
if ARGV[5] ~= '' then redis.call('HINCRBY', KEYS[1], ARGV[5], 1) end
local newest = redis.call('HGET', KEYS[1], 'as_of_us')
if not newest or tonumber(ARGV[7]) > tonumber(newest) then redis.call('HSET', KEYS[1], 'as_of_us', ARGV[7]) end
if ARGV[8] ~= '' then
    local weight = tonumber(redis.call('HINCRBYFLOAT', KEYS[3], ARGV[8], ARGV[9]))
    local own, other = KEYS[2], KEYS[5]
    if weight <= 0 then own, other = other, own end
    local moved = redis.call('ZSCORE', other, ARGV[8])
    if moved then
        redis.call('ZREM', other, ARGV[8])
        redis.call('ZADD', own, moved, ARGV[8])
    end
    redis.call('ZADD', own, 'LT', -tonumber(ARGV[7]), ARGV[8])
end
expire(ARGV[10])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', oldest)
redis.call('ZADD', KEYS[4], now, digest)
redis.call('PEXPIRE', KEYS[4], math.ceil(tonumber(window) / 1000))
return 1
"""
# The keys are that of the erasure, the four of the exposure log, and the five of the user in each generation.
_ERASE = """
local noted = redis.call('HGET', KEYS[1], 'at_us')
if not noted or tonumber(noted) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], 'at_us', ARGV[1], 'readmitted', ARGV[2])
end
local removed = {0, 0, 0, 0, 0}
if redis.call('HGET', KEYS[1], 'readmitted') == '1' then return removed end
removed[4], removed[5] = redis.call('ZCARD', KEYS[3]), redis.call('ZCARD', KEYS[5])
redis.call('DEL', unpack(KEYS, 2, 5))
for key = 6, #KEYS, 5 do
    removed[1] = removed[1] + redis.call('EXISTS', KEYS[key])
    removed[2] = removed[2] + redis.call('ZCARD', KEYS[key + 1]) + redis.call('ZCARD', KEYS[key + 4])
    removed[3] = removed[3] + redis.call('ZCARD', KEYS[key + 3])
    redis.call('DEL', unpack(KEYS, key, key + 4))
end
return removed
"""
SCRIPTS = {
    hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(): text
    for text in (_SCAN, _READ, _APPLY, _UPDATE, _ERASE)
}
"""The text of each script by the name under which Redis calls it."""
SCAN, READ, APPLY, UPDATE, ERASE = SCRIPTS
