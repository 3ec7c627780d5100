// Claude without a key or a bill: aimock, with answers that fit the seeded templates, written at a
// pace one can watch. It accepts every API key, also at GET /v1/models.
import { LLMock } from '@copilotkit/aimock';

const line = (text, label) => text.match(new RegExp(`${label}: *(.*)`))?.[1]?.trim() ?? '';

// What to answer, by a phrase of the seeded prompt.
const answers = [
  [
    'a poet who writes haiku',
    (system) => `Quiet at the edge—\n${line(system, 'about this topic') || 'something'}, then a small bright sound:\nthe morning begins.`,
  ],
  [
    'git commit messages',
    (system) => {
      const issue = line(system, 'if any');
      const subject = line(system, 'change is for') || 'describe the change';
      return `${subject[0].toUpperCase()}${subject.slice(1)}

Callers were asked to settle before Claude had begun to answer, so an
overloaded upstream cost them money and gave them nothing. Waiting for
the first event keeps a failed start free, and costs no time when the
start succeeds, because settlement overlaps the rest of the answer.${issue && `\n\nRefs: ${issue}`}`;
    },
  ],
  [
    'release notes',
    () => '**New**\n- Answers are written as they arrive.\n\n**Fixed**\n- An overloaded model no longer costs anything.',
  ],
  [
    'explain error messages',
    () => `1. Something that should be a list is still \`undefined\` when \`.map\` is called on it.
2. The likely cause is a first render before the data has arrived: the message names the property
   (\`reading 'map'\`), so the value in front of it is what is missing.
3. Give it an empty list to begin with: \`const [items, setItems] = useState([])\`.
4. If it still fails after loading, log the response once: an API that wraps its list in an object
   fails in the same way, but on every render.`,
  ],
];

const fallback = () => 'This is the stand-in for Claude. Set ANTHROPIC_API_KEY before `make dev` for real answers.';

const textOf = (messages, role) =>
  messages.filter((message) => message.role === role).map(({ content }) => (typeof content === 'string' ? content : '')).join('\n');

// English text has about four characters a token; good enough for numbers that look right.
const tokens = (text) => Math.max(1, Math.ceil(text.length / 4));

/** Something that satisfies a plain schema. Of what is too clever for it, it makes something that may not. */
function sample(schema, prose) {
  if (schema?.const !== undefined) return schema.const;
  if (schema?.enum) return schema.enum[0];
  const kind = [schema?.type ?? (schema?.properties ? 'object' : 'string')].flat()[0];
  const number = Math.max(schema?.minimum ?? 1, schema?.exclusiveMinimum !== undefined ? schema.exclusiveMinimum + 1 : -Infinity);
  const each = () => sample(schema.items ?? {}, prose);
  const all = {
    object: () => Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, inner]) => [name, sample(inner, prose)])),
    array: () => Array.from({ length: schema.minItems ?? 1 }, each),
    string: () => prose.slice(0, schema.maxLength),
    number: () => Math.min(number, schema.maximum ?? number),
    boolean: () => true,
    null: () => null,
  };
  return (all[kind === 'integer' ? 'number' : kind] ?? all.string)();
}

/** The answer in the form that a contract asks for (HIRE): JSON, or several items. */
function inForm(prose, asked) {
  if (!asked.includes('Answer with one JSON value')) return prose;
  if (asked.includes('"items"') && asked.includes('at most')) {
    const item = (name, type, mime, content) => ({ name, type, mime, content });
    const notes = JSON.stringify({ lines: prose.split('\n').length });
    return JSON.stringify({ items: [item('answer.md', 'file', 'text/markdown', prose), item('notes.json', 'json', 'application/json', notes)] });
  }
  const schema = asked.split('JSON Schema:\n')[1];
  return JSON.stringify(schema ? sample(JSON.parse(schema), prose) : { answer: prose });
}

function respond(write) {
  return (request) => {
    const system = textOf(request.messages, 'system');
    const content = inForm(write(system), textOf(request.messages, 'user'));
    return { content, usage: { input_tokens: tokens(system + textOf(request.messages, 'user')) + 8, output_tokens: tokens(content) } };
  };
}

/** `ttft`: milliseconds before the first event. `tps`: events a second after it, four characters each. */
export async function startClaude({ port = 0, ttft = 400, tps = 30 } = {}) {
  const mock = new LLMock({ port, host: '127.0.0.1', chunkSize: 4, logLevel: 'silent' });
  const pace = { streamingProfile: { ttft, tps, jitter: 0.3 } };
  for (const [phrase, write] of answers) mock.on({ systemMessage: phrase }, respond(write), pace);
  mock.on({}, respond(fallback), pace); // templates that were made while developing
  await mock.start();
  return {
    url: mock.url,
    mock,
    /** What was asked so far, as aimock records it. */
    requests: () => mock.getRequests(),
    close() {
      // On its own, stop() waits until every answer is written to its end, at reading pace.
      const { server } = mock.serverInstance;
      const stopped = mock.stop();
      server.closeAllConnections();
      return stopped;
    },
  };
}
