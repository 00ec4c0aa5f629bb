# Completion for bash: subcommands, names of machines, and options as --help lists them.
_doppel() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} i
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$("$1" --help 2>/dev/null | sed -n 's/^  \([a-z]*\)  .*/\1/p')" -- "$word"))
        return
    fi
    for ((i = 2; i < COMP_CWORD; i++)); do
        [ "${COMP_WORDS[i]}" != -- ] || return # a command of the guest's
    done
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$("$1" "$command" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p')" -- "$word"))
        return
    fi
    case $command in
    run | start | stop | restart | kill | exec | pause | resume | console | logs | events | show | edit | enable | disable | ssh | connect | rm | rename)
        COMPREPLY=($(compgen -W "$("$1" list --names 2>/dev/null)" -- "$word")) ;;
    cp)
        # A name and its colon; what follows is known to the guest alone. Without them, files.
        [[ $word == */* || $word == *:* ]] || compopt -o nospace 2>/dev/null
        [[ $word == */* || $word == *:* ]] ||
            COMPREPLY=($(compgen -S : -W "$("$1" list --names 2>/dev/null)" -- "$word") $(compgen -f -- "$word")) ;;
    esac
}
complete -o default -F _doppel doppel
