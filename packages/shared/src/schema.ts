/**
 * What an application declares of its records, as plain data: used by the client's app and the relay's config alike.
 */
export {}
