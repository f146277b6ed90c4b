// node openai_sdk.mjs URL AGENT: a stream put together by the client, what is stored, and the rest of it after a cursor.
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const plain = (response) =>
  response.output.map((item) => [item.type, item.id, item.content?.[0]?.text ?? item.output ?? item.arguments ?? null]);

async function accumulated(options) {
  const numbers = [];
  const stream = client.responses.stream(options);
  for await (const event of stream) numbers.push(event.sequence_number);
  const final = await stream.finalResponse();
  return { id: final.id, status: final.status, text: final.output_text, items: plain(final), numbers };
}

const streamed = await accumulated({ model, input: "What is the weather?" });
const stored = await client.responses.retrieve(streamed.id);
const replayed = await accumulated({ response_id: streamed.id });
const rest = [];
for await (const event of await client.responses.retrieve(streamed.id, { stream: true, starting_after: 5 })) {
  rest.push(event.sequence_number);
}
console.log(JSON.stringify({ streamed, stored: { text: stored.output_text, items: plain(stored) }, replayed, rest }));
