// Downloads a file by byte ranges, shows what came back and compares its SHA-256 with the published one.
// `/download.html#run` starts by itself.

const FILE = '/media/sample.bin'
const SUM = '/media/sample.sha256'

const form = document.querySelector('#check')
const button = form.querySelector('button')
const map = document.querySelector('#map')
const at = (id) => document.querySelector(`#${id}`)

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  button.disabled = true
  reset()
  try {
    await check(Number(form.part.value), form.shuffle.checked)
  } catch (error) {
    verdict('bad', error.message)
  } finally {
    button.disabled = false
  }
})

if (location.hash === '#run') form.requestSubmit()

async function check (partSize, shuffle) {
  const { size, etag } = await describe()
  const parts = split(size, partSize || size)
  if (shuffle) shuffleInPlace(parts)
  drawMap(parts.length)

  const file = new Uint8Array(size)
  const answers = new Map()
  let received = 0
  const started = performance.now()
  for (const part of parts) {
    map.children[part.index].className = 'now'
    const { status, bytes } = await fetchPart(part, size, etag)
    file.set(bytes, status === 206 ? part.start : 0)
    answers.set(status, (answers.get(status) ?? 0) + 1)
    received += bytes.length
    map.children[part.index].className = 'done'
    at('received').textContent = `${received.toLocaleString('en')} of ${size.toLocaleString('en')} bytes`
    at('answers').textContent = [...answers].map(([code, count]) => `${code} × ${count}`).join(', ')
    if (status === 200) break // the server ignored the range and sent the whole file
  }
  const seconds = (performance.now() - started) / 1000
  for (const cell of map.children) cell.className = 'done'
  at('rate').textContent = `${(received / 1e6 / seconds).toFixed(1)} MB/s over ${(seconds * 1000).toFixed(0)} ms`

  await verify(file)
}

async function describe () {
  const head = await fetch(FILE, { method: 'HEAD', cache: 'no-store' })
  if (head.status === 404) throw new Error(`${FILE} does not exist. Run "npx tsx scripts/make-site-media.ts" and try again.`)
  const size = Number(head.headers.get('content-length'))
  if (!head.ok || !(size > 0)) throw new Error(`HEAD ${FILE} gave status ${head.status} and no usable length.`)
  return { size, etag: head.headers.get('etag') }
}

/** One range. A server that ignores `Range` answers 200 with the whole file, which is allowed. */
async function fetchPart ({ start, end }, size, etag) {
  const answer = await fetch(FILE, { headers: { range: `bytes=${start}-${end}` }, cache: 'no-store' })
  const bytes = new Uint8Array(await answer.arrayBuffer())
  if (answer.status !== 200 && answer.status !== 206) throw new Error(`Bytes ${start}-${end}: status ${answer.status}.`)
  if (answer.headers.get('etag') !== etag) throw new Error('The file changed during the download. Start again.')
  const wanted = answer.status === 206 ? end - start + 1 : size
  if (bytes.length !== wanted) throw new Error(`Bytes ${start}-${end}: received ${bytes.length} bytes, expected ${wanted}.`)
  const range = answer.headers.get('content-range')
  if (answer.status === 206 && range !== `bytes ${start}-${end}/${size}`) {
    throw new Error(`Bytes ${start}-${end}: the answer says "${range}".`)
  }
  return { status: answer.status, bytes }
}

async function verify (file) {
  const sum = await fetch(SUM, { cache: 'no-store' })
  if (!sum.ok) throw new Error(`${SUM}: status ${sum.status}; the checksum cannot be compared.`)
  const expected = (await sum.text()).trim().split(/\s+/)[0]
  at('expected').textContent = expected

  if (!globalThis.crypto?.subtle) {
    at('actual').textContent = `not available here; in a shell: curl -s ${location.origin}${FILE} | sha256sum`
    verdict('', 'Every part has the right length. The checksum was not compared: browsers compute SHA-256 only on https or localhost.')
    return
  }
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', file))
  const actual = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
  at('actual').textContent = actual
  if (actual === expected) verdict('good', 'The file is complete: the checksums match.')
  else verdict('bad', 'The checksums differ: the received bytes are not the published ones.')
}

function split (size, partSize) {
  return Array.from({ length: Math.ceil(size / partSize) }, (_, index) => {
    const start = index * partSize
    return { index, start, end: Math.min(start + partSize, size) - 1 }
  })
}

function shuffleInPlace (list) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]]
  }
}

function drawMap (count) {
  map.replaceChildren(...Array.from({ length: count }, () => document.createElement('i')))
}

function reset () {
  map.replaceChildren()
  at('received').textContent = 'nothing yet'
  at('answers').textContent = 'none yet'
  at('rate').textContent = 'not measured'
  at('expected').textContent = 'not fetched'
  at('actual').textContent = 'not computed'
  verdict('', 'Downloading.')
}

function verdict (state, text) {
  at('verdict').dataset.state = state
  at('verdict').textContent = text
}
