// npm oidc-provider on 127.0.0.1, for the tests of the folder above. What is
// here only configures it: protocol, pages and store are the package's own.
//
//   node server.mjs --issuer <url> [--port <n>] [--redirect-uri <url>]...
//                   [--access-token-lifetime <s>] [--post]
//
// The client's credentials come in the environment: CLIENT_ID, CLIENT_SECRET.
// API_SECRET is that of the client "api", who asks about access tokens (RFC
// 7662). A third client, "public", has none. A line {"url": …} on the standard
// output says that it listens; it ends when its standard input does, so that it
// never outlives who started it.
import { createServer } from 'node:http';
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';

import { Provider } from 'oidc-provider';

const { values: args } = parseArgs({
  options: {
    issuer: { type: 'string' },
    port: { type: 'string', default: '0' },
    'redirect-uri': { type: 'string', multiple: true, default: [] },
    'access-token-lifetime': { type: 'string', default: '600' },
    post: { type: 'boolean', default: false }, // the client's secret in the body
  },
});

function fromEnvironment(name) {
  const value = process.env[name];
  if (!value) throw new Error(`the environment has no ${name}`);
  return value;
}

const client = {
  // A native client's loopback redirect URI may have any port (RFC 8252 §7.3).
  application_type: 'native',
  redirect_uris: args['redirect-uri'],
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token'],
};

const provider = new Provider(args.issuer, {
  clients: [
    {
      ...client,
      client_id: fromEnvironment('CLIENT_ID'),
      client_secret: fromEnvironment('CLIENT_SECRET'),
      token_endpoint_auth_method: args.post ? 'client_secret_post' : 'client_secret_basic',
    },
    { ...client, client_id: 'public', token_endpoint_auth_method: 'none' },
    {
      client_id: 'api',
      client_secret: fromEnvironment('API_SECRET'),
      redirect_uris: [],
      response_types: [],
      grant_types: [],
    },
  ],
  scopes: ['openid', 'offline_access', 'api'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: {
    AccessToken: Number(args['access-token-lifetime']),
    AuthorizationCode: 60,
    Grant: 3600,
    IdToken: 600,
    Interaction: 600,
    RefreshToken: 3600,
    Session: 3600,
  },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  features: {
    // Takes any password, and asks for consent: forms to fill, like others.
    devInteractions: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
});

const server = createServer(provider.callback());
server.listen(Number(args.port), '127.0.0.1', () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` }));
});

process.stdin.resume().on('end', () => process.exit(0));
