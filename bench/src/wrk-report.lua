-- Prints exact counts, because the text output of wrk is rounded. Defines only `done`, so wrk keeps its fast path for requests and
-- responses.
local function ms(latency, percentile)
  return string.format("%.3f", latency:percentile(percentile) / 1000)
end

function done(summary, latency)
  local times = "null"
  if summary.requests > 0 then
    times = string.format('{"p50":%s,"p90":%s,"p99":%s,"p999":%s,"max":%.3f}',
      ms(latency, 50), ms(latency, 90), ms(latency, 99), ms(latency, 99.9), latency.max / 1000)
  end
  local e = summary.errors
  io.write(string.format(
    'zerosend-bench {"seconds":%.6f,"requests":%d,"bytes":%.0f,"latencyMs":%s,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.duration / 1e6, summary.requests, summary.bytes, times,
    e.connect, e.read, e.write, e.status, e.timeout))
end
