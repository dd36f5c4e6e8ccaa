package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const reconnectPause = 2 * time.Second

func consoleCommand() *cobra.Command {
	var receiver receiverFlags
	var port int
	cmd := &cobra.Command{
		Use:   "console NAME [-n NAMESPACE | --admin URL]",
		Short: "Make a webhook's console reachable from this machine, until Ctrl-C",
		Long: "Make a webhook's console reachable from this machine, until Ctrl-C, by forwarding a port of its receiver's\n" +
			"pod. When the pod is replaced, the new one is connected to.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			name, err := receiver.name(first(args))
			if err == nil {
				err = receiver.findLocal(ctx, name)
			}
			if err != nil {
				return err
			}
			if receiver.admin != "" {
				_, _, end, err := receiver.connect(ctx, "")
				if err != nil {
					return err
				}
				end()
				line(cmd.OutOrStdout(), "console  %s/", strings.TrimSuffix(receiver.admin, "/"))
				return nil
			}
			for said := false; ; {
				tunnel, err := receiver.forward(ctx, name, port)
				switch {
				case ctx.Err() != nil:
					return nil
				case err != nil && !said:
					return err
				case err != nil:
					cmd.PrintErrln("pbxhook:", err)
				case !said:
					line(cmd.OutOrStdout(), "console  %s/   (Ctrl-C ends it)", tunnel.base)
					port, said = tunnel.port, true // the same one from now on
				}
				if tunnel != nil {
					select {
					case <-tunnel.ended:
						cmd.PrintErrln("pbxhook: the connection ended; connecting again")
					case <-ctx.Done():
					}
					tunnel.end()
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(reconnectPause):
				}
			}
		},
	}
	receiver.add(cmd)
	cmd.Flags().IntVar(&port, "port", 0, "port on this machine (default: 9091, or another one when that is taken)")
	return cmd
}
