// An OpenID Connect provider for tests: the npm package oidc-provider with one account, and a door
// through which a test changes it.
//
//     REDIRECT_URI=... [REFRESH_S=N] node oidc.mjs MODULES
//
// MODULES is the folder that has node_modules. Says `ready PORT` when it listens on 127.0.0.1, and
// ends when its standard input does.
//
//     POST /control/groups?a,b   the account's groups from now on
//     POST /control/revoke       whatever was granted until now

import { createRequire } from "node:module";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const require = createRequire(pathToFileURL(join(process.argv[2], "node_modules", "x.js")));
// Its advice is for who runs it in earnest.
console.warn = console.info = () => {};
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

let groups = ["staff"];
const grants = [];

const listener = createServer();
await new Promise((done) => listener.listen(0, "127.0.0.1", done));
const { port } = listener.address();

const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [{
        client_id: "altnet",
        client_secret: "a secret of tests +/%",
        redirect_uris: [process.env.REDIRECT_URI],
        grant_types: ["authorization_code", "refresh_token"],
        application_type: "native",
    }],
    claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
    scopes: ["openid", "offline_access"],
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: ["for tests"] },
    ttl: process.env.REFRESH_S ? { RefreshToken: Number(process.env.REFRESH_S) } : {},
    rotateRefreshToken: !process.env.REFRESH_S,
    findAccount: (_, id) => ({
        accountId: id,
        claims: () => ({ sub: id, preferred_username: "Ann", groups }),
    }),
});

async function interact(request, response) {
    const { prompt, params, session } = await provider.interactionDetails(request, response);
    if (prompt.name === "consent") {
        const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
        grant.addOIDCScope(params.scope);
        const consent = { grantId: await grant.save() };
        grants.push(consent.grantId);
        return provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
    }
    let body = "";
    for await (const part of request) body += part;
    if (new URLSearchParams(body).get("password") !== "right") {
        response.writeHead(request.method === "POST" ? 403 : 200).end("who are you?");
        return undefined;
    }
    return provider.interactionFinished(request, response, { login: { accountId: "subject-1" } });
}

async function control(request, response) {
    if (request.url.startsWith("/control/groups?")) {
        groups = request.url.split("?")[1].split(",").filter(Boolean);
    } else {
        for (const grantId of grants) {
            await provider.RefreshToken.revokeByGrantId(grantId);
            await provider.AccessToken.revokeByGrantId(grantId);
            await (await provider.Grant.find(grantId))?.destroy();
        }
    }
    response.writeHead(204).end();
}

const serve = provider.callback();
listener.on("request", (request, response) => {
    const answer = request.url.startsWith("/interaction/") ? interact
        : request.url.startsWith("/control/") ? control : serve;
    Promise.resolve(answer(request, response)).catch((e) => response.writeHead(500).end(String(e)));
});
process.stdin.on("end", () => process.exit(0)).resume();
console.log(`ready ${port}`);
