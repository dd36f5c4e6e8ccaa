// Receivers as users write them, with the official SDKs for JavaScript: each verifies the signature and reads the event.
// A server a framework; the path's last segment is the format. What was understood, or why not, is a line of JSON each
// on standard output; the first line says where the servers are.
'use strict';

const http = require('node:http');
const { HTTP } = require('cloudevents');
const { Webhook } = require('standardwebhooks');
const express = require('express');
const fastify = require('fastify');

const webhook = new Webhook(process.env.SIGNING_SECRET);

// takes reports what a receiver understood, and returns the status to answer with.
function takes(receiver, path, headers, raw, read) {
  const line = { receiver, format: path.split('/').pop(), id: headers['webhook-id'] };
  try {
    webhook.verify(raw.toString('utf8'), headers);
    Object.assign(line, read(line.format));
  } catch (error) {
    line.error = String(error);
  }
  process.stdout.write(JSON.stringify(line) + '\n');
  return line.error ? 422 : 204;
}

// cloudevents is node's own server with the SDK of CloudEvents.
const cloudevents = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const raw = Buffer.concat(chunks);
    response.statusCode = takes('cloudevents', request.url, request.headers, raw, (format) => {
      const events = [HTTP.toEvent({ headers: request.headers, body: raw.toString('utf8') })].flat();
      if (events.length !== 1) throw new Error(`expected one event, got ${events.length}`);
      const [event] = events;
      event.validate();
      return { event: { id: event.id, source: event.source, type: event.type, subject: event.subject, time: event.time, pbxevent: event.pbxevent, data: event.data } };
    });
    response.end();
  });
});

// withExpress has Express parse all that calls itself JSON.
function withExpress() {
  const app = express();
  app.use(express.json({ type: ['json', '+json'], verify: (request, response, raw) => { request.raw = raw; } }));
  app.post('/:format', (request, response) => {
    response.status(takes('express', request.path, request.headers, request.raw, () => ({ body: request.body }))).end();
  });
  app.use((error, request, response, next) => { // its own parser refused the body
    takes('express', request.path, request.headers, Buffer.alloc(0), () => { throw error; });
    response.status(error.status || 500).end();
  });
  return http.createServer(app);
}

// withFastify has Fastify's own parser read all that calls itself JSON.
function withFastify() {
  const app = fastify({ serverFactory: (handle) => http.createServer(handle) });
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser(/^application\/([\w-]+\+)?json(;|$)/, { parseAs: 'buffer' }, (request, raw, done) => {
    request.raw.bytes = raw;
    parse(request, raw.toString('utf8'), done);
  });
  app.post('/:format', (request, reply) => {
    reply.status(takes('fastify', request.url, request.headers, request.raw.bytes, () => ({ body: request.body }))).send();
  });
  app.setErrorHandler((error, request, reply) => {
    takes('fastify', request.url, request.headers, Buffer.alloc(0), () => { throw error; });
    reply.status(error.statusCode || 500).send();
  });
  return app.ready().then(() => app.server);
}

async function main() {
  const servers = { cloudevents, express: withExpress(), fastify: await withFastify() };
  const ports = {};
  for (const [name, server] of Object.entries(servers)) {
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    ports[name] = server.address().port;
  }
  process.stdout.write(JSON.stringify({ ports }) + '\n');
  process.stdin.resume().on('end', () => process.exit(0)); // the test is over
}

main();
