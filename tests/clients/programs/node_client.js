// Uses node-postgres in its usual ways. Prints "ok NAME" for every check that holds, "failed NAME: why" for others.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')
const { Client, Pool } = require('pg')

const env = process.env
const options = {
  host: env.PGHOSTADDR,
  port: Number(env.PGPORT),
  user: 'admin',
  database: 'postgres',
  password: env.PGPASSWORD,
  ssl: { ca: fs.readFileSync(env.PGSSLROOTCERT), servername: env.ENDPOINT, rejectUnauthorized: true },
}

async function check(name, body) {
  const client = new Client(options)
  client.on('error', () => {})
  try {
    await client.connect()
    await body(client)
    console.log('ok ' + name)
  } catch (problem) {
    console.log(`failed ${name}: ${String(problem.stack).replaceAll('\n', ' ')}`)
  } finally {
    await client.end()
  }
}

const codeOf = (promise) => promise.then(() => null, (refused) => refused.code)

async function main() {
  await check('definition', (c) => c.query('CREATE TABLE node (id int PRIMARY KEY, v text, j jsonb, at timestamptz)'))

  await check('values', async (c) => {
    const at = new Date('2026-02-03T04:05:06.789Z')
    await c.query('INSERT INTO node VALUES ($1, $2, $3, $4)', [1, "it's é 😀", { a: [1, null] }, at])
    const { rows } = await c.query('SELECT * FROM node WHERE id = $1', [1])
    assert.deepEqual(rows, [{ id: 1, v: "it's é 😀", j: { a: [1, null] }, at }])
    assert.equal((await c.query('SELECT id FROM node WHERE id = ANY($1)', [[1, 2]])).rowCount, 1)
  })

  await check('transactions', async (c) => {
    await c.query('BEGIN')
    await c.query('INSERT INTO node (id) VALUES (2)')
    await c.query('ROLLBACK')
    await c.query('BEGIN')
    await c.query('INSERT INTO node (id) VALUES (3)')
    await c.query('COMMIT')
    assert.deepEqual((await c.query('SELECT id FROM node ORDER BY id')).rows.map((r) => r.id), [1, 3])
    assert.equal(await codeOf(c.query('INSERT INTO node (id) VALUES (3)')), '23505')
  })

  await check('named statements', async (c) => {
    for (let n = 10; n < 20; n++) {
      await c.query({ name: 'insert', text: 'INSERT INTO node (id, v) VALUES ($1, $2)', values: [n, 'named'] })
    }
    const { rows } = await c.query({ name: 'count', text: 'SELECT count(*)::int AS n FROM node WHERE v = $1', values: ['named'] })
    assert.equal(rows[0].n, 10)
  })

  await check('errors', async (c) => {
    const refused = await c.query('SELECT id, nope FROM node').catch((e) => e)
    assert.equal(refused.code, '42703')
    assert.equal(refused.position, '12')
    assert.equal(await codeOf(c.query('SELECT 1 / $1::int', [0])), '22012')
    assert.equal(await codeOf(c.query('TRUNCATE node')), '0A000')
    assert.equal((await c.query('SELECT 1 AS one')).rows[0].one, 1)
  })

  await check('many statements in a text', async (c) => {
    const results = await c.query('SELECT 1 AS a; SELECT 2 AS b')
    assert.deepEqual(results.map((r) => r.rows), [[{ a: 1 }], [{ b: 2 }]])
  })

  await check('queued queries', async (c) => {
    const results = await Promise.all([...Array(20).keys()].map((n) => c.query('SELECT $1::int AS n', [n])))
    assert.deepEqual(results.map((r) => r.rows[0].n), [...Array(20).keys()])
  })

  await check('pool', async () => {
    const pool = new Pool({ ...options, max: 4 })
    await Promise.all([...Array(20).keys()].map((n) => pool.query('INSERT INTO node (id, v) VALUES ($1, $2)', [100 + n, 'pool'])))
    assert.equal((await pool.query("SELECT count(*)::int AS n FROM node WHERE v = 'pool'")).rows[0].n, 20)
    await pool.end()
  })

  await check('wrong token', async () => {
    const wrong = new Client({ ...options, password: 'guess' })
    wrong.on('error', () => {})
    assert.equal(await codeOf(wrong.connect()), '08006')
  })

  await check('removal', (c) => c.query('DROP TABLE node'))
}

main()
