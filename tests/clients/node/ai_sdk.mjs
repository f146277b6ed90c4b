// node ai_sdk.mjs URL AGENT stream|generate: a conversation of two turns with a tool of the client's own.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const [url, agent, mode] = process.argv.slice(2);
const sent = []; // the types of the input items of each request
const provider = createOpenAI({
  baseURL: `${url}/v1`,
  apiKey: "none",
  fetch: (address, request) => {
    sent.push(JSON.parse(request.body).input.map((item) => item.type ?? item.role));
    return fetch(address, request);
  },
});
let executed = 0;
const get_weather = tool({
  description: "Tells the weather",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } } }),
  execute: async ({ city }) => {
    executed += 1;
    return `3 degrees in ${city}`;
  },
});

async function ask(messages) {
  const errors = [];
  const options = {
    model: provider.responses(agent),
    messages,
    tools: { get_weather },
    stopWhen: stepCountIs(3),
    maxRetries: 0,
  };
  const result =
    mode === "generate" ? await generateText(options) : streamText({ ...options, onError: (e) => errors.push(e.error) });
  const text = await result.text;
  if (errors.length) throw errors[0];
  return {
    text,
    finish: await result.finishReason,
    steps: (await result.steps).length,
    messages: (await result.response).messages ?? (await result.responseMessages),
  };
}

const first = await ask([{ role: "user", content: "What is the weather?" }]);
const second = await ask([
  { role: "user", content: "What is the weather?" },
  ...first.messages,
  { role: "user", content: "And now?" },
]);
console.log(
  JSON.stringify({
    answers: [first.text, second.text],
    finish: [first.finish, second.finish],
    steps: [first.steps, second.steps],
    executed,
    sent,
  }),
);
