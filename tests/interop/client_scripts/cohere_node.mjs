// Cohere's SDK for Node, and Vercel's `ai` with its Cohere package. Reads a call from standard input like calling.py.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";

const require = createRequire(pathToFileURL(`${process.env.INTEROP_MODULES}/interop.js`));
const load = async (name) => import(pathToFileURL(require.resolve(name)));

const clients = {
  async cohere(url, query, documents) {
    const { CohereClientV2 } = await load("cohere-ai");
    const client = new CohereClientV2({ token: "interop", environment: url });
    const reply = await client.rerank({ model: "tiny", query, documents });
    return reply.results.map((result) => [result.index, result.relevanceScore]);
  },
  async vercel(url, query, documents) {
    const { rerank } = await load("ai");
    const { createCohere } = await load("@ai-sdk/cohere");
    const cohere = createCohere({ apiKey: "interop", baseURL: `${url}/v2` });
    const reply = await rerank({ model: cohere.reranking("tiny"), query, documents });
    return reply.ranking.map((result) => [result.originalIndex, result.score]);
  },
};

const call = JSON.parse(readFileSync(0, "utf-8"));
const results = [];
for (const [query, documents] of call.queries) {
  results.push(await clients[call.client](call.url, query, documents));
}
console.log(`\n${JSON.stringify(results)}`);
